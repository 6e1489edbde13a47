"""What can go wrong with killmails, as a tree:

KillmailError
├── UpstreamError                the upstream did not give what we asked for; asking again later is right
│   ├── UpstreamUnreachable      no connection, no answer in time, or an answer cut short
│   ├── UpstreamRefused          an answer with a status that is none of ours to use (`status`, `retry_after`)
│   └── BadPointer               sequence.json that tells no sequence that we could believe
├── Unacceptable                 what came cannot be accepted (`reason`, `detail`, `raw`); it is kept in quarantine
│   └── Unreadable               … but it may have been damaged on the way: ask again first
├── Outrun                       another worker moved the feed cursor first; nothing was stored
├── BadRecording                 a recording file that cannot be served
└── BadFilter                    a killmail filter that is wrong or can never match (`message`)
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a package is in quarantine."""

    NOT_JSON = "NOT_JSON"
    BAD_JSON = "BAD_JSON"
    BAD_FIELD = "BAD_FIELD"
    HASH_MISMATCH = "HASH_MISMATCH"
    TOO_LARGE = "TOO_LARGE"


class KillmailError(Exception):
    """The root of this tree."""


class UpstreamError(KillmailError):
    """The upstream did not give what we asked for; retry later."""


class UpstreamUnreachable(UpstreamError):
    """No connection, no answer within the deadline, or an answer cut short."""


class UpstreamRefused(UpstreamError):
    """A status other than 200 and 404. `retry_after`: seconds that the upstream asked for, None if it did not."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}" + (f", retry after {retry_after:.0f} s" if retry_after else ""))
        self.status = status
        self.retry_after = retry_after


class BadPointer(UpstreamError):
    """sequence.json that tells no sequence that we could believe; the cursor stays."""


class Unacceptable(KillmailError):
    """A package that we cannot take; asking again would give the same."""

    def __init__(self, reason: Reason, detail: str, raw: bytes = b"") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.raw = raw
        self.killmail_id: int | None = None


class Unreadable(Unacceptable):
    """No JSON, or broken JSON: perhaps damaged on the way, so worth a second question."""


class Outrun(KillmailError):
    """Another worker moved the feed cursor first; nothing was stored."""


class BadRecording(KillmailError):
    """A recording file that cannot be served; the text names file, line and fault."""


class BadFilter(KillmailError):
    """A killmail filter that is wrong, or that no killmail can ever pass; `message` names the clause by its path."""

    def __init__(self, path: str, what: str) -> None:
        self.message = f"{path}: {what}"
        super().__init__(self.message)
