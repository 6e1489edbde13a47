"""Driving the admin as a browser would, with killmails and rejected packages made to order."""

import json
from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killmails.ingest.store import store_killmail
from killmails.models import Killmail, LogHead, RejectedKillmail
from killmails.recording.tape import killmail_hash
from killmails.records import parse_package

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ADMIN = "/admin/killmails"
KILLMAILS = f"{ADMIN}/killmail/"
REJECTED = f"{ADMIN}/rejectedkillmail/"
JITA, RIFTER, CAPSULE, CONTAINER, AMMO = 30000142, 587, 670, 3467, 185
MODELS = [
    "alliance", "attacker", "character", "constellation", "corporation", "deadletter", "faction", "feedcursor",
    "feedgap", "inventorycategory", "inventorygroup", "inventorytype", "killmail", "killmailevent", "killmailsync",
    "loghead", "region", "rejectedkillmail", "solarsystem", "usercharacter",
]  # fmt: skip


def package(killmail_id=1, attackers=1, items=(), labels=(), value=1_234_567_890.12, minutes=0, **zkb):
    body = {
        "killmail_id": killmail_id,
        "killmail_time": f"{NOW - timedelta(hours=1) + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}",
        "solar_system_id": zkb.pop("system", JITA),
        "victim": {
            "character_id": 90000001,
            "corporation_id": 98000001,
            "ship_type_id": zkb.pop("ship", RIFTER),
            "damage_taken": 500,
            "items": list(items),
            "position": {"x": 1.5, "y": -2.0, "z": 3e11},
        },
        "attackers": [
            {
                "character_id": 91000000 + ordinal,
                "corporation_id": 98000002,
                "ship_type_id": RIFTER,
                "weapon_type_id": AMMO,
                "damage_done": 5,
                "final_blow": ordinal == attackers - 1,
                "security_status": -1.5,
            }
            for ordinal in range(attackers)
        ],
    }
    zkb = {"totalValue": value, "npc": False, "solo": False, "awox": False, "labels": list(labels)} | zkb
    hash_ = killmail_hash(body)
    whole = {"killmail_id": killmail_id, "hash": hash_, "esi": body, "zkb": zkb, "uploaded_at": 1795435200}
    return json.dumps(whole | {"sequence_id": killmail_id}).encode()


def store(killmail_id=1, **fields):
    LogHead.objects.get_or_create(pk=1)  # a test that empties all tables may have run before
    store_killmail(parse_package(package(killmail_id, **fields), killmail_id, NOW))
    return Killmail.objects.get(pk=killmail_id)


def reject(sequence=1, raw=b"<html>", reason="NOT_JSON", state="OPEN", **fields):
    return RejectedKillmail.objects.create(
        sequence=sequence, raw=raw, reason=reason, state=state, **{"detail": "the body is HTML"} | fields
    )


def page(client, path, status=200, **query):
    response = client.get(path, query)
    assert response.status_code == status, (path, query, response.status_code)
    return response.content.decode()


def listed(client, path, **query):
    """The primary keys in the list, in its order."""
    response = client.get(path, query)
    assert response.status_code == 200, response.status_code
    return [row.pk for row in response.context["cl"].result_list]


def act(client, action, rejected, **fields):
    data = {"action": action, "_selected_action": [row.pk for row in rejected]} | fields
    return client.post(REJECTED, data, follow=True)


def messages(response):
    return [str(message) for message in response.context["messages"]]


def states():
    return list(RejectedKillmail.objects.order_by("pk").values_list("state", flat=True))


def queries_of(client, path):
    client.get(path)  # the first one also fills caches
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return captured.captured_queries


def log_in(client, *permissions):
    """As somebody of the staff with these permissions and no others."""
    user = User.objects.create_user("mechanic", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    client.force_login(user)
    return client


def assert_no_page(response, name):
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "default-src 'none'; sandbox"
