"""What can go wrong with killmails, as a tree:

KillmailError
├── UpstreamError                the upstream did not give what we asked for; asking again later is right
│   ├── UpstreamUnreachable      no connection, no answer in time, or an answer cut short
│   ├── UpstreamRefused          an answer with a status that is none of ours to use (`status`, `retry_after`)
│   ├── BudgetSpent              the upstream's limits say wait: nothing was asked (`retry_after`)
│   │   └── BudgetAway           … or nobody knows what is left, since what counts it cannot be reached
│   └── BadPointer               sequence.json that tells no sequence that we could believe
├── EsiUnknown                   ESI does not know it; asking again is no use (`status`)
├── Unacceptable                 what came cannot be accepted (`reason`, `detail`, `raw`); it is kept in quarantine
│   └── Unreadable               … but it may have been damaged on the way: ask again first
├── Outrun                       another worker was faster (the feed's cursor, a claim); nothing was stored
├── TokenRefused                 ESI does not take an access token; one refresh may help
├── EsiForbidden                 ESI refuses what a character may not see: a role or a membership is missing
├── GrantRefused                 EVE's SSO has ended a grant, or never gave it; asking again is no use
├── BadToken                     what claims to be a token of EVE's and is none
│   └── UnknownKey               … or one that EVE's newest key has signed, which it does not tell yet
├── NoGrant                      we have no right to ask for a character, until somebody logs in again
├── NotWelcome                   a user who may not log in with EVE: banned, or one of who runs the board
├── SealBroken                   a token at rest that none of our keys opens
├── BadStaticData                CCP's static data that cannot be loaded; the text names file, line and fault
├── LoadUnderWay                 another process loads static data; the text names it
├── BadPrices                    a file of prices that cannot be loaded; the text names file, line and fault
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
    ESI_UNKNOWN = "ESI_UNKNOWN"
    TOO_MANY_TRIES = "TOO_MANY_TRIES"


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


class BudgetSpent(UpstreamError):
    """Asking now would break the upstream's limits, so nothing was asked. `retry_after`: seconds to wait."""

    def __init__(self, retry_after: float, why: str) -> None:
        super().__init__(f"not asked: {why}; again in {retry_after:.1f} s")
        self.retry_after = retry_after


class BudgetAway(BudgetSpent):
    """What counts the budget cannot be reached, and without it nothing is asked."""


class EsiUnknown(KillmailError):
    """ESI says that there is no such thing, a killmail with this hash, for example; asking again is no use."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"ESI does not know {what} (status {status})")
        self.status = status


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
    """Another worker moved the feed cursor, or claimed the work, first; nothing was stored."""


class TokenRefused(KillmailError):
    """ESI does not take an access token, though it should be good; one refresh may help."""


class EsiForbidden(KillmailError):
    """ESI refuses what this character may not see; the text is ESI's own."""


class GrantRefused(KillmailError):
    """EVE's SSO says that a grant is over, or that a code is none: invalid_grant. Asking again is no use."""


class BadToken(KillmailError):
    """A token that EVE did not sign, not for us, or not for now."""


class UnknownKey(BadToken):
    """A token signed with a key that is not among EVE's, or not yet: while EVE changes its keys, some are told late."""


class NoGrant(KillmailError):
    """A character that may not be asked for: the grant is gone, or does not hold what is needed. The text says why."""


class NotWelcome(KillmailError):
    """A user who may not log in with EVE: banned, or somebody who runs the board, and has a password."""


class SealBroken(KillmailError):
    """A token at rest that cannot be opened: TOKEN_KEYS has lost the key that it was encrypted with."""


class BadStaticData(KillmailError):
    """Static data that cannot be loaded; the text names file, line and fault. Nothing of it is loaded."""


class LoadUnderWay(KillmailError):
    """Another process loads static data; the text names it."""


class BadPrices(KillmailError):
    """Prices that cannot be loaded; the text names file, line and fault. Nothing of the file is stored."""


class BadRecording(KillmailError):
    """A recording file that cannot be served; the text names file, line and fault."""


class BadFilter(KillmailError):
    """A killmail filter that is wrong, or that no killmail can ever pass; `message` names the clause by its path."""

    def __init__(self, path: str, what: str) -> None:
        self.message = f"{path}: {what}"
        super().__init__(self.message)
