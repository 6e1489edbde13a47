"""The answers for supervisors and for Prometheus: status codes, headers, and who may read what."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from health import database, metrics, rabbitmq
from health.checks import report
from health.part import Part, State, ok
from health.views import Health

TOKEN = "a token of more than sixteen letters"
LOCAL, FOREIGN = "127.0.0.1", "203.0.113.9"

PARTS = {"database": ok(True, engine="PostgreSQL"), "beat": Part(State.DEGRADED, "Start it.")}
DOWN = PARTS | {"database": Part(State.DOWN, "Start it.", True)}


def get(path: str, health: Health | None = None, method: str = "GET", peer: str | None = LOCAL, **headers: str) -> Any:
    """The answer: status, headers, body."""
    sent: list[dict] = []
    scope = {"type": "http", "method": method, "path": path, "client": (peer, 1) if peer else None}
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run((health or saying(PARTS))(scope, None, send))
    start, body = sent
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return SimpleNamespace(status=start["status"], headers=named, body=body["body"])


def saying(parts: dict[str, Part]) -> Health:
    async def say() -> dict[str, Part]:
        return parts

    health = Health()
    health._checks = SimpleNamespace(all=say, ready=say)
    return health


def test_health_tells_the_whole_and_each_part() -> None:
    answer = get("/health")
    assert (answer.status, answer.headers["content-type"], answer.headers["cache-control"]) == (
        200, "application/json", "no-store",
    )  # fmt: skip
    assert json.loads(answer.body) == {
        "status": "degraded",
        "parts": {
            "database": {"status": "ok", "needed": True, "hint": "", "engine": "PostgreSQL"},
            "beat": {"status": "degraded", "needed": False, "hint": "Start it."},
        },
    }
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("path", ["/health", "/health/", "/health/ready"])
def test_a_needed_part_that_is_down_makes_it_503(path: str) -> None:
    answer = get(path, saying(DOWN))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert json.loads(answer.body)["status"] == "down"


def test_live_asks_nobody() -> None:
    answer = get("/health/live", saying(DOWN))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_only_get_and_head(path: str) -> None:
    whole, head = get(path), get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    refused = get(path, method="POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_only_its_own_addresses_are_taken_from_django() -> None:
    health = Health()
    assert [path for path in ("/health", "/health/redis/", "/metrics", "/", "/health/x", "/graphql", "/healthy")
            if health.serves(path)] == ["/health", "/health/redis/", "/metrics"]  # fmt: skip


# Who may read the metrics


@pytest.mark.parametrize(
    ("proxies", "peer", "headers", "allowed"),
    [
        (0, LOCAL, {}, True),
        (0, "::1", {}, True),
        (0, FOREIGN, {}, False),
        (0, None, {}, False),  # a socket of Unix: who knows who is behind it
        (0, LOCAL, {"x_forwarded_for": FOREIGN}, False),
        (0, LOCAL, {"x_forwarded_for": LOCAL}, False),
        (0, LOCAL, {"x_forwarded_for": ""}, False),
        (0, LOCAL, {"forwarded": f"for={LOCAL}"}, False),
        (0, LOCAL, {"x_real_ip": LOCAL}, False),
        (1, LOCAL, {}, True),
        (1, LOCAL, {"x_forwarded_for": LOCAL}, True),
        (1, LOCAL, {"x_forwarded_for": FOREIGN}, False),
        (1, LOCAL, {"x_forwarded_for": f"{LOCAL}, {FOREIGN}"}, False),
        (2, LOCAL, {"x_forwarded_for": f"{LOCAL}, {FOREIGN}"}, False),  # one proxy fewer than was said
        (1, LOCAL, {"x_forwarded_for": "nonsense"}, False),
        (1, LOCAL, {"x_real_ip": LOCAL}, False),
        (1, FOREIGN, {"x_forwarded_for": LOCAL}, False),
        (0, FOREIGN, {"authorization": f"Bearer {TOKEN}"}, True),
        (0, LOCAL, {"x_forwarded_for": FOREIGN, "authorization": f"bearer {TOKEN}"}, True),
        (0, FOREIGN, {"authorization": f"Bearer {TOKEN}x"}, False),
        (0, FOREIGN, {"authorization": f"Basic {TOKEN}"}, False),
        (0, FOREIGN, {"authorization": TOKEN}, False),
        (0, FOREIGN, {"authorization": "Bearer "}, False),
    ],
)
def test_metrics_are_for_this_machine_and_for_who_has_the_token(settings, proxies, peer, headers, allowed) -> None:
    settings.METRICS_TOKEN, settings.TRUSTED_PROXIES = TOKEN, proxies
    answer = get("/metrics", peer=peer, **headers)
    assert answer.status == (200 if allowed else 403)
    assert (b"killboard_part_ok" in answer.body) is allowed
    assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", "Bearer None", ""])
def test_without_a_token_in_the_settings_none_opens_the_metrics(settings, authorization) -> None:
    settings.METRICS_TOKEN = ""
    assert get("/metrics", peer=FOREIGN, authorization=authorization).status == 403


# What Prometheus reads


def samples(parts: dict[str, Part]) -> dict[str, float]:
    lines = metrics.render(parts).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def worker(name: str, **counted: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "alive": True, "counted": counted}


def test_health_does_not_tell_anybody_what_was_asked_for_users() -> None:
    """By it one might see that a killmail came which its owner withholds."""
    esi = {"answers": {"200": 9}, "left": {"killmail": 1}}
    others = {"zkillboard_site": {"200": 3, "404": 1}, "sso": {"200": 4}}
    parts = {"workers": ok(True, workers=[worker("worker a", stored={"added": 2}, esi=esi, others=others)])}
    assert report(parts)["parts"]["workers"]["workers"][0]["counted"] == {"stored": {"added": 2}}
    found = samples(parts)
    assert found['killboard_esi_requests_total{answer="200"}'] == 9
    assert {name: value for name, value in found.items() if name.startswith("killboard_upstream")} == {
        'killboard_upstream_requests_total{answer="200",upstream="sso",worker="worker a"}': 4,
        'killboard_upstream_requests_total{answer="200",upstream="zkillboard_site",worker="worker a"}': 3,
        'killboard_upstream_requests_total{answer="404",upstream="zkillboard_site",worker="worker a"}': 1,
    }


def test_what_is_not_known_has_no_value() -> None:
    found = samples(
        {"database": Part(State.DOWN), "feed": Part(State.DEGRADED, facts={"lag_seconds": None, "cursor": 7})}
    )
    assert found['killboard_part_ok{part="database"}'] == 0
    assert found["killboard_feed_cursor"] == 7
    assert "killboard_feed_lag_seconds" not in found
    assert "killboard_workers_alive" not in found


def test_two_workers_of_one_name_are_one_line() -> None:
    """Prometheus takes nothing of an answer in which a line comes twice."""
    both = [
        worker("worker a", upstream={"200": 3, "404": 1}, stored={"added": 2}),
        worker("worker a", upstream={"200": 4}),
    ]
    gone = {"name": "worker b", "alive": False, "counted": {"upstream": {"200": 9}}}
    found = samples({"workers": ok(True, workers=[*both, gone])})
    asked = {name: value for name, value in found.items() if name.startswith("killboard_upstream")}
    assert asked == {
        'killboard_upstream_requests_total{answer="200",upstream="zkillboard",worker="worker a"}': 7,
        'killboard_upstream_requests_total{answer="404",upstream="zkillboard",worker="worker a"}': 1,
    }
    assert found['killboard_killmails_stored_total{outcome="added",worker="worker a"}'] == 2
    assert found["killboard_workers_alive"] == 2


def test_what_all_workers_share_of_esi_is_told_once() -> None:
    both = [
        worker("a", esi={"answers": {"200": 7, "404": 1}, "left": {"errors": 99, "killmail": 3400}, "banned_for": 0}),
        worker("b", esi={"answers": {"200": 9}, "left": {"errors": 98, "killmail": 3500}, "banned_for": 590}),
        worker("c", esi={}),
        worker("d"),
    ]
    found = samples({"workers": ok(True, workers=both)})
    assert {name: value for name, value in found.items() if name.startswith("killboard_esi")} == {
        'killboard_esi_requests_total{answer="200"}': 9,
        'killboard_esi_requests_total{answer="404"}': 1,
        "killboard_esi_banned_seconds": 590,
        'killboard_esi_budget_left{group="errors"}': 98,
        'killboard_esi_budget_left{group="killmail"}': 3400,
    }


def test_every_metric_is_in_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "health.md").read_text()
    workers = ok(True, workers=[worker("a", upstream={"200": 1}, stored={"added": 1})])
    lines = metrics.render(PARTS | {"workers": workers}).decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE killboard_")}
    told = set(re.findall(r"`(killboard_\w+)", text))
    assert {name.removesuffix("_total") for name in told} == {name.removesuffix("_total") for name in names}


# Nothing that is secret


def test_what_a_driver_says_of_an_address_is_told_nobody(settings, monkeypatch, caplog) -> None:
    """T19: a database and a broker that cannot be reached, whose addresses hold passwords."""
    secret = "hunter2"
    settings.DATABASE_URL = f"postgresql://user:{secret}@127.0.0.1:9/secret"
    settings.RABBITMQ_URL = f"amqp://user:{secret}@127.0.0.1:9/"
    settings.FEED = "live"

    def away() -> None:
        connections[f"{secret}"]  # raises an error that names it

    monkeypatch.setattr(database, "use_own_connection", away)
    answer = get("/health", Health())
    parts = json.loads(answer.body)["parts"]
    assert answer.status == 503
    assert {parts[name]["status"] for name in ("database", "rabbitmq", "workers")} == {"down"}
    assert (parts["database"]["hint"], parts["rabbitmq"]["hint"]) == (database.AWAY, rabbitmq.AWAY)
    assert parts["beat"]["hint"] == parts["feed"]["hint"] == parts["hub"]["hint"] == database.UNKNOWN
    assert secret not in answer.body.decode()
    assert len(caplog.records) == 6
    assert secret not in caplog.text
