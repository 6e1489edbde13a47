"""Push and pull agree: what a filtered subscription was sent is what the same filter finds, to the byte.

On all real killmails that are at hand, else on the recording.
"""

import json
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.builders import some_real_killmails
from tests.e2e.crowd import ask, head_of
from tests.e2e.processes import Board, new_board
from tests.e2e.sockets import Socket, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services]

Filter = dict[str, Any]
SELECTION = """{ position kind killmail {
  id time totalValue attackerCount labels isNpc warId solarSystem { id name }
  victim { character { id } shipType { id name } } finalBlow { corporation { id } shipType { id } }
  attackers { alliance { id } weaponType { id } damageDone }
} }"""
PUSH = f"subscription ($filter: KillmailFilter) {{ killmailEvents(filter: $filter) {SELECTION} }}"
PULL = """query ($filter: KillmailFilter, $after: String) {
  killmailEvents(filter: $filter, after: $after, first: 100) { nodes %s position hasNextPage }
}"""
POSITIONS = "{ position killmail { id } }"
LIST = """query ($filter: KillmailFilter, $after: String) {
  killmails(filter: $filter, after: $after, first: 100) { nodes { id } pageInfo { endCursor hasNextPage } }
}"""
STORE = "from tests.builders import some_real_killmails, store_killmails; store_killmails(some_real_killmails())"
BEFORE = b'"payload":{"data":{"killmailEvents":'
PER_SOCKET = 16  # operations


def most(count: int, values: Iterator[int | None]) -> list[str]:
    """The most frequent ids."""
    return [str(value) for value, _ in Counter(value for value in values if value).most_common(count)]


def wanted(bodies: list[dict[str, Any]]) -> list[Filter]:
    """Thirty filters that fit these killmails; the first wants everything."""
    systems = most(4, (body["solar_system_id"] for body in bodies))

    def seen(
        key: str, count: int = 3, pick: Callable[[dict], list[dict]] = lambda body: body["attackers"]
    ) -> list[str]:
        return most(count, (row.get(key) for body in bodies for row in pick(body)))

    def victims(key: str, count: int = 3) -> list[str]:
        return seen(key, count, lambda body: [body["victim"]])

    times = sorted(body["killmail_time"] for body in bodies)
    middle, late = times[len(times) // 2], times[len(times) * 3 // 4]
    of_places = [
        {"solarSystemIds": systems}, {"solarSystemIds": systems[:1]}, {"not": {"solarSystemIds": systems}},
        {"regionIds": [str(number) for number in range(10_000_001, 10_000_036)]},
        {"constellationIds": [str(number) for number in range(20_000_001, 20_000_300)]},
        {"securityBands": ["HIGH"]}, {"securityBands": ["LOW", "NULL"]}, {"securityBands": ["WORMHOLE", "POCHVEN"]},
    ]  # fmt: skip
    of_people = [
        {"characterIds": seen("character_id", 20)}, {"corporationIds": seen("corporation_id")},
        {"allianceIds": seen("alliance_id")}, {"factionIds": seen("faction_id")},
        {"victim": {"allianceIds": victims("alliance_id")}}, {"attacker": {"allianceIds": seen("alliance_id")}},
        {"finalBlow": {"corporationIds": seen("corporation_id", 10)}}, {"not": {"allianceIds": seen("alliance_id")}},
    ]  # fmt: skip
    of_things = [
        {"shipTypeIds": seen("ship_type_id")}, {"victim": {"shipTypeIds": victims("ship_type_id")}},
        {"weaponTypeIds": seen("weapon_type_id", 5)}, {"shipGroupIds": ["25", "420", "26"]},
        {"attacker": {"shipTypeIds": seen("ship_type_id"), "allianceIds": seen("alliance_id", 10)}},
        {"warIds": most(3, (body.get("war_id") for body in bodies)) or ["1"]},
    ]  # fmt: skip
    of_values = [
        {"minValue": 2e8}, {"maxValue": 1e8, "minAttackers": 2}, {"minAttackers": 10}, {"since": middle, "until": late},
        {"isNpc": False, "isSolo": False}, {"labels": ["pvp"]},
        {"any": [{"minAttackers": 20}, {"isAwox": True}, {"not": {"securityBands": ["HIGH"]}}], "since": middle},
    ]  # fmt: skip
    return [{}, *of_places, *of_people, *of_things, *of_values]


class Listening:
    """One socket in a thread: the bytes of every event, by the operation's id; without the checkpoints."""

    def __init__(self, board: Board, filters: dict[str, Filter]) -> None:
        self.events: dict[str, list[bytes]] = {id_: [] for id_ in filters}
        self.checkpoints = 0
        self._socket = Socket(board)
        for id_, wanted_here in filters.items():
            self._socket.subscribe(id_, PUSH, filter=wanted_here)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.checkpoints == len(filters))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                text = self._socket.hear_text(seconds=0.5).encode()
            except TimeoutError:
                continue
            event = text[text.index(BEFORE) + len(BEFORE) : -3]
            if b'"kind":"CHECKPOINT"' in event:
                self.checkpoints += 1
            else:
                self.events[json.loads(text)["id"]].append(event)

    def finish(self) -> dict[str, list[bytes]]:
        """What came, when nothing more has come for a moment."""
        count = -1
        while count != (count := sum(map(len, self.events.values()))):
            self._stop.wait(0.7)
        self._stop.set()
        self._thread.join()
        self._socket.connection.close()
        return self.events


def answer_to(board: Board, query: str, **variables: Any) -> bytes:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{board.url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def pages(board: Board, one: Filter, selection: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The log's pages: as bytes, and read."""
    after, more = None, True
    while more:
        answer = answer_to(board, PULL.replace("%s", selection), filter=one, after=after)
        page = json.loads(answer)["data"]["killmailEvents"]
        yield answer, page
        after, more = page["position"], page["hasNextPage"]


def expect_same_bytes(board: Board, one: Filter, pushed: list[bytes]) -> None:
    """The pages of the log are what was pushed, strung together."""
    rest = list(pushed)
    for answer, page in pages(board, one, SELECTION):
        count = len(page["nodes"])
        assert answer.startswith(b'{"data":{"killmailEvents":{"nodes":[' + b",".join(rest[:count]) + b'],"position":')
        del rest[:count]
    assert rest == []


def expect_same_events(board: Board, one: Filter, pushed: list[bytes], everything: set[bytes]) -> None:
    """The same events in the same order, and each the same bytes as for everybody else."""
    events = [json.loads(event) for event in pushed]
    expected = [{"position": event["position"], "killmail": {"id": event["killmail"]["id"]}} for event in events]
    assert [node for _, page in pages(board, one, POSITIONS) for node in page["nodes"]] == expected, one
    assert everything.issuperset(pushed), one


def listed(board: Board, one: Filter) -> set[str]:
    """The ids of all that the list of killmails finds."""
    found, after, more = set(), None, True
    while more:
        page = ask(board, LIST, filter=one, after=after)["killmails"]
        found |= {node["id"] for node in page["nodes"]}
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


def ids(events: list[bytes]) -> list[str]:
    return [json.loads(event)["killmail"]["id"] for event in events]


def test_what_a_filter_is_sent_is_what_it_finds_on_every_killmail(tmp_path) -> None:
    killmails = some_real_killmails()
    filters = wanted([killmail["esi"] for killmail in killmails])
    named = {str(number): one for number, one in enumerate(filters)}
    names = list(named)
    with new_board(tmp_path, "filtered") as board:
        board.uvicorn()
        parts = [names[at : at + PER_SOCKET] for at in range(0, len(names), PER_SOCKET)]
        sockets = [Listening(board, {name: named[name] for name in part}) for part in parts]
        storing = board.start("storing", sys.executable, "manage.py", "shell", "-v", "0", "-c", STORE)
        assert storing.popen.wait(240) == 0, storing.end_of_log()
        wait_until(lambda: len(sockets[0].events["0"]) == head_of(board)[1], seconds=60)
        pushed = {name: events for socket in sockets for name, events in socket.finish().items()}
        found = {name: listed(board, named[name]) for name in names}
        expect_same_bytes(board, {}, pushed["0"])
        for name, events in pushed.items():
            expect_same_events(board, named[name], events, set(pushed["0"]))
        # Not blind: an event that was not pushed is noticed.
        with pytest.raises(AssertionError):
            expect_same_bytes(board, {}, pushed["0"][1:])
        with pytest.raises(AssertionError):
            expect_same_events(board, {}, pushed["0"][1:], set(pushed["0"]))
    assert len(pushed["0"]) == len(killmails)
    for name, events in pushed.items():
        assert sorted(ids(events)) == sorted(found[name]), named[name]
    # And filters are told apart, since most of them want some killmails and not others.
    telling = [name for name in names if 0 < len(pushed[name]) < len(killmails)]
    assert len(telling) >= 20
    assert len({frozenset(found[name]) for name in telling}) >= 20
    print(f"{len(names)} filters, {len(killmails)} killmails, {sum(map(len, pushed.values()))} events: push is pull")
