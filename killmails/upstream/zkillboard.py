"""zKillboard's feed R2Z2: numbered files; and its site, which knows the hash of each killmail.

Source: https://zkillboard.com/api/docs/
"""

import time

from killmails.errors import BadPointer, EsiUnknown, Unacceptable, UpstreamUnreachable
from killmails.strict_json import BadJson, read_json
from killmails.upstream.esi_answers import HASH
from killmails.upstream.http import Answer, Client

PACE = 0.1  # seconds between two questions; upstream allows 15 a second, and its own documents show this pace
SITE_PACE = 1.0  # seconds, for its API
USER_AGENT = "killboard/0.1 (EVE Online killboard backend; contact: {contact})"


class Zkillboard:
    """The feed, one question at a time and at most ten a second."""

    def __init__(self, base_url: str, contact: str, deadline: float = 15.0) -> None:
        self._base_url = base_url
        self._client = Client(USER_AGENT.format(contact=contact or "not given"), deadline)
        self._asked_at = 0.0

    def fetch_pointer(self) -> int:
        """A recent sequence, up to 51 behind the newest. Raises UpstreamError."""
        try:
            answer = self._get("sequence.json")
            sequence = read_json(answer.body)["sequence"] if answer.status == 200 else None
        except Unacceptable as error:
            raise BadPointer(f"sequence.json cannot be read ({error}).") from error
        except (BadJson, TypeError, KeyError):
            sequence = None
        if type(sequence) is not int or not 0 < sequence < 2**62:
            raise BadPointer(f"sequence.json holds no sequence: {answer.body[:80]!r}")
        return sequence

    def fetch_package(self, sequence: int) -> bytes | None:
        """The bytes of a package; None where there is none (yet). Raises UpstreamError, Unacceptable (too large)."""
        answer = self._get(f"{sequence:d}.json")
        return answer.body if answer.status == 200 else None

    def hang_up(self) -> None:
        """Ends the question under way, if there is one, from another thread; it raises UpstreamUnreachable then."""
        self._client.hang_up()

    def _get(self, name: str) -> Answer:
        time.sleep(max(0.0, self._asked_at + PACE - time.monotonic()))
        try:
            return self._client.get(f"{self._base_url}/ephemeral/{name}")
        finally:
            self._asked_at = time.monotonic()


class ZkillboardSite:
    """Questions to zKillboard's own API, at most one in a second. For one thread."""

    def __init__(self, base_url: str, contact: str) -> None:
        self._base_url = base_url
        self._client = Client(USER_AGENT.format(contact=contact or "not given"), upstream="zkillboard_site")
        self._asked_at = float("-inf")

    def fetch_hash(self, killmail_id: int) -> str:
        """Raises EsiUnknown where zKillboard has no such killmail, or a hash that is none; UpstreamError."""
        time.sleep(max(0.0, self._asked_at + SITE_PACE - time.monotonic()))
        try:
            answer = self._client.get(f"{self._base_url}/api/killID/{killmail_id:d}/")
        finally:
            self._asked_at = time.monotonic()
        try:
            found = read_json(answer.body) if answer.status == 200 else []
            hashes = [entry["zkb"]["hash"] for entry in found if entry["killmail_id"] == killmail_id]
        except (BadJson, TypeError, KeyError) as error:
            raise UpstreamUnreachable(f"zKillboard's answer for killmail {killmail_id} cannot be read") from error
        if not hashes or not isinstance(hashes[0], str) or not HASH.fullmatch(hashes[0]):
            raise EsiUnknown(answer.status, f"killmail {killmail_id}: zKillboard has none")
        return hashes[0]
