"""The recording as data: loading it from a file, and which R2Z2 package lies under which sequence.

Knows nothing of HTTP; `killmails.recording.server` puts it on the wire.
"""

import json
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from killmails import records
from killmails.errors import BadRecording, Unacceptable
from killmails.strict_json import BadJson, read_json

SHIPPED_RECORDING = Path(__file__).with_name("killmails.jsonl")
# Ids of a looped recording are LOOP_BASE_ID + sequence: above every killmail that EVE has had
# (about 140 million by the end of 2026), below 2**31, and never the same for two sequences.
LOOP_BASE_ID = 1_000_000_000
READY_SPACING_SECONDS = 15
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# Whether a recorded time lies in the future is for the board to judge, when it meets the killmail.
END_OF_TIME = datetime(9000, 1, 1, tzinfo=UTC)


def killmail_hash(esi: dict[str, Any]) -> str:
    """The hash that CCP gives to the killmail with this ESI body. KeyError, ValueError if it is not one."""
    final_blow: dict[str, Any] = next((attacker for attacker in esi["attackers"] if attacker["final_blow"]), {})
    return records.killmail_hash(
        esi["victim"].get("character_id"),
        final_blow.get("character_id"),
        esi["victim"]["ship_type_id"],
        datetime.strptime(esi["killmail_time"], TIME_FORMAT).replace(tzinfo=UTC),
    )


def load_recording(path: Path | None = None) -> list[dict[str, Any]]:
    """The killmails of a recording in the order of the file (None = the shipped one).

    Raises BadRecording for a file that is missing, empty or wrong: one line with the file, the line in it
    and the fault. Wrong is what a board would put into quarantine.
    """
    path = SHIPPED_RECORDING if path is None else path
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read: {error.strerror or error}") from error
    killmails = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            killmails.append(_record(line))
        except (BadJson, Unacceptable) as error:
            raise BadRecording(f"{path}, line {number}: {error}") from error
    if not killmails:
        raise BadRecording(f"{path}: holds no killmail")
    return killmails


def _record(line: bytes) -> dict[str, Any]:
    """One line of a recording, checked as the board checks a package. Raises BadJson or Unacceptable."""
    record = read_json(line)
    if not isinstance(record, dict):
        raise BadJson("not a JSON object")
    missing = [key for key in ("killmail_id", "hash", "esi") if record.get(key) is None]
    if missing:
        raise BadJson(f"{', '.join(missing)} missing")
    records.parse_package(php_json(_package(record, 1, 0)), 1, END_OF_TIME)
    return record


class Tape:
    """What is published, by the clock or by hand, and the package under each sequence.

    A package that the clock publishes is a pure function of its sequence and of the start, so nothing
    is kept in memory for it, however long the tape plays.
    """

    def __init__(
        self, killmails: Sequence[dict[str, Any]], *, rate: float, first_sequence: int, ready: int, loop: bool
    ) -> None:
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"rate must be a number of killmails a second from 0, not {rate}")
        if first_sequence < 1 or ready < 0:
            raise ValueError(f"first_sequence must be from 1 and ready from 0, not {first_sequence} and {ready}")
        if loop and not killmails:
            raise ValueError("an empty recording cannot be looped")
        self.killmails = list(killmails)
        self.rate = rate
        self.first_sequence = first_sequence
        self.ready = ready if loop else min(ready, len(self.killmails))
        self.loop = loop
        self._by_hand: list[dict[str, Any]] = []
        self._replaced: dict[int, dict[str, Any]] = {}
        self._updated: list[int] = []
        self._started: tuple[float, float] | None = None

    def start(self) -> None:
        """Start the clock; a second call changes nothing: killmails appear whether a server is up or not."""
        if self._started is None:
            self._started = (time.monotonic(), time.time())

    @property
    def head(self) -> int | None:
        """The newest sequence published, None before the first."""
        count = self._count()
        return self.first_sequence + count - 1 if count else None

    @property
    def pointer(self) -> int:
        """What sequence.json says: at most 51 behind the head, once the head has left the ready ones.

        Upstream writes it only when the head is more than 51 above the number last written. The
        killmails that are ready at the start do not count: a client that begins at the pointer must
        see all of them, also when it comes a little later.
        """
        start = self.first_sequence + max(self.ready - 1, 0)
        steps = ((self.head or 0) - start) // 52
        return start + 52 * steps if steps > 0 else self.first_sequence

    def publish(self, record: dict[str, Any]) -> int:
        """Put a record up at the next sequence, which is returned. Only for a tape without a clock."""
        if self.rate:
            raise ValueError(f"publish() needs rate 0; here the clock publishes {self.rate} a second")
        sequence = self.first_sequence + self._count()
        package = _package(record, sequence, int(time.time()))
        if self._updated:
            package["sequence_updated"] = self._updated.pop(0)
        self._by_hand.append(package)
        return sequence

    def republish(self, sequence: int, record: dict[str, Any]) -> None:
        """Upload a published file again; the next head file names it in `sequence_updated`, as upstream."""
        if self.package(sequence) is None:
            raise ValueError(f"sequence {sequence} is not published yet")
        self._replaced[sequence] = _package(record, sequence, int(time.time()))
        self._updated.append(sequence)

    def package(self, sequence: int) -> dict[str, Any] | None:
        """The R2Z2 package under a sequence, keys in upstream's order; None = not there."""
        index = sequence - self.first_sequence
        if not 0 <= index < self._count():
            return None
        if sequence in self._replaced:
            return self._replaced[sequence]
        clocked = self._clocked()
        if index >= clocked:
            return self._by_hand[index - clocked]
        record = self.killmails[(sequence - 1) % len(self.killmails) if self.loop else index]
        uploaded_at = int(self._uploaded_at(index))
        return _package(_revived(record, sequence, uploaded_at) if self.loop else record, sequence, uploaded_at)

    def _clocked(self) -> int:
        """How many killmails of the recording are published."""
        if self._started is None:
            return 0
        count = self.ready + int((time.monotonic() - self._started[0]) * self.rate)
        return count if self.loop else min(count, len(self.killmails))

    def _count(self) -> int:
        return self._clocked() + len(self._by_hand)

    def _uploaded_at(self, index: int) -> float:
        """Unix seconds at which the package of this index appeared; the ready ones lie in the past."""
        assert self._started is not None, "nothing is published before start()"
        if index < self.ready:
            return self._started[1] - (self.ready - 1 - index) * READY_SPACING_SECONDS
        return self._started[1] + (index - self.ready + 1) / self.rate


def _package(record: dict[str, Any], sequence: int, uploaded_at: int) -> dict[str, Any]:
    return {
        "killmail_id": record["killmail_id"],
        "hash": record["hash"],
        "esi": record["esi"],
        "zkb": record.get("zkb"),
        "uploaded_at": uploaded_at,
        "sequence_id": sequence,
    }


def _revived(record: dict[str, Any], sequence: int, uploaded_at: int) -> dict[str, Any]:
    """A copy of the record as a new killmail: id of the sequence, killed 20 to 79 s before its upload."""
    killed = datetime.fromtimestamp(uploaded_at - 20 - sequence * 37 % 60, UTC)
    esi = {
        **record["esi"],
        "killmail_id": LOOP_BASE_ID + sequence,
        "killmail_time": killed.strftime(TIME_FORMAT),
    }
    new_hash = killmail_hash(esi)
    href = f"https://esi.evetech.net/killmails/{esi['killmail_id']}/{new_hash}/"
    zkb = record.get("zkb") and {**record["zkb"], "hash": new_hash, "href": href}
    if zkb and zkb.get("labels"):
        zkb["labels"] = [_tz_label(killed.hour) if name.startswith("tz:") else name for name in zkb["labels"]]
    return {"killmail_id": esi["killmail_id"], "hash": new_hash, "esi": esi, "zkb": zkb}


def _tz_label(hour: int) -> str:
    """zKillboard's label for the part of the world that plays at this hour (UTC)."""
    for first, last, label in ((4, 7, "tz:usw"), (8, 13, "tz:au"), (14, 16, "tz:ru"), (17, 21, "tz:eu")):
        if first <= hour <= last:
            return label
    return "tz:use"


def php_json(value: Any) -> bytes:
    """JSON as PHP's json_encode writes it without flags: compact, non-ASCII and slashes escaped."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).replace("/", "\\/").encode("ascii")
