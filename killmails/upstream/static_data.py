"""CCP's static data: which build is the newest, and the zip of it.

Source: https://developers.eveonline.com/docs/services/static-data/
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from killmails.errors import Reason, Unacceptable, UpstreamRefused, UpstreamUnreachable
from killmails.fields import Fields
from killmails.strict_json import BadJson, read_json
from killmails.upstream.http import Answer, Client, Told, retry_after
from killmails.upstream.zkillboard import USER_AGENT

DOWNLOAD_DEADLINE = 3600.0  # seconds for the whole zip, of about 100 MB
STALL = 30.0  # seconds without a byte of it
ZIP_CAP = 1024**3  # bytes
FILE = "eve-online-static-data-{build}-jsonl.zip"


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest build; `etag` is empty where the server sent none."""

    build: int
    released_at: datetime | None
    etag: str


class StaticData:
    """For one thread."""

    def __init__(self, base_url: str, contact: str, stall: float = STALL, cap: int = ZIP_CAP) -> None:
        self._base_url = f"{base_url}/tranquility"
        agent = USER_AGENT.format(contact=contact or "not given")
        self._client = Client(agent, upstream="static_data")
        self._downloads = Client(agent, DOWNLOAD_DEADLINE, upstream="static_data", cap=cap)
        self._stall = stall

    def fetch_latest(self, etag: str) -> Latest | None:
        """None: still what it was when `etag` came. Raises UpstreamError, Unacceptable."""
        headers = {"If-None-Match": etag} if etag else {}
        answer = self._client.ask("GET", f"{self._base_url}/latest.jsonl", headers=headers)
        if answer.status == 304:
            return None
        _check(answer)
        for line in answer.body.splitlines():
            record = _read(line)
            if record.has("_key") and record.value("_key") == "sde":
                released = record.value("releaseDate") if record.has("releaseDate") else None
                return Latest(record.id("buildNumber"), _moment(released), answer.headers.get("ETag", "")[:200])
        raise Unacceptable(Reason.BAD_FIELD, "latest.jsonl: has no record `sde`")

    def download(self, build: int, into: BinaryIO, told: Told | None = None) -> str:
        """Writes the zip of this build. Its name. Raises UpstreamError, Unacceptable (TOO_LARGE)."""
        name = FILE.format(build=build)
        with self._watched(name, told) as heard:
            _check(self._downloads.download(f"{self._base_url}/{name}", into, told=heard))
        return name

    @contextmanager
    def _watched(self, name: str, told: Told | None) -> Iterator[Told]:
        """Hangs up when no byte has come for a while: a connection may be silent without end."""
        done, last = threading.Event(), time.monotonic()
        stalled = False

        def heard(written: int, total: int | None) -> None:
            nonlocal last
            last = time.monotonic()
            if told:
                told(written, total)

        def watch() -> None:
            nonlocal stalled
            while not done.wait(self._stall / 10):
                if time.monotonic() - last > self._stall:
                    stalled = True
                    self._downloads.hang_up()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield heard
        except UpstreamUnreachable as error:
            if stalled:
                raise UpstreamUnreachable(f"{name}: nothing came for {self._stall:.0f} s") from error
            raise
        finally:
            done.set()
            watcher.join()


def _check(answer: Answer) -> None:
    if answer.status != 200:
        raise UpstreamRefused(answer.status, retry_after(answer.headers.get("Retry-After")))


def _read(line: bytes) -> Fields:
    try:
        return Fields(read_json(line), "")
    except BadJson as error:
        raise Unacceptable(Reason.NOT_JSON, f"latest.jsonl: {error}") from error


def _moment(value: object) -> datetime | None:
    """None for what is no instant, since nothing depends on it."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else None
