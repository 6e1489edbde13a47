"""The log: on stderr, one event a line, for people or as JSON. The one handler hides secrets, whoever logs."""

import json
import logging
import logging.config
import sys
import threading
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Any

from killboard.redaction import configured_secrets, hide, spellings

LONGEST_VALUE = 2048  # bytes
LONGEST_TRACE = 16_384
OURS = ("killboard", "killmails", "realtime", "health")
# Each of them brings a handler of its own, which would hide nothing; their lines go to ours instead.
BRING_HANDLERS = ("django", "django.server", "uvicorn", "uvicorn.access")

logger = logging.getLogger(__name__)


def logging_config(level: str, form: str) -> dict[str, Any]:
    """For `settings.LOGGING`; `level` is that of our own loggers, `form` is `text` or `json`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"secrets": {"()": "killboard.logs.Secrets"}},
        "formatters": {"text": {"()": "killboard.logs.Text"}, "json": {"()": "killboard.logs.Json"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["secrets"], "formatter": form}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            # Of Celery's pool; it reaches no other handler.
            "multiprocessing": {"handlers": ["stderr"], "propagate": False},
            # A wrong Host is the asker's mistake, and any scanner makes it: no line for people.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            # A traceback each second while Redis is away; the doorbell says so once.
            "channels_redis": {"level": "CRITICAL"},
            **{name: {"level": level} for name in OURS},
        },
    }


def configure(config: dict[str, Any]) -> None:
    """For `settings.LOGGING_CONFIG`: Django calls it in each process, uvicorn's after uvicorn's own configuration."""
    logging.config.dictConfig(config)
    for name in BRING_HANDLERS:
        other = logging.getLogger(name)
        if other.handlers:  # none: `uvicorn --no-access-log`
            other.handlers.clear()
            other.propagate = True
    logging.captureWarnings(True)
    # What nobody caught goes the same way; where somebody else listens (pytest), it stays theirs.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _log_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logger.critical("The process ends: nobody has caught this error.", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None and not issubclass(caught.exc_type, SystemExit):
        name = caught.thread.name if caught.thread else "unknown"
        information = (caught.exc_type, caught.exc_value, caught.exc_traceback)
        logger.critical("The thread %s ends: nobody has caught this error.", name, exc_info=information)


class Secrets(logging.Filter):
    """Lets every record through, without secrets in message, arguments and traceback, for all who come after."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide(_message(record), self._known), None
        if record.exc_info or record.exc_text:
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]
            record.exc_text = hide(text, self._known)
        if record.stack_info:
            record.stack_info = hide(record.stack_info, self._known)
        return True

    @cached_property
    def _known(self) -> Any:
        return spellings(configured_secrets())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a value's own __str__; `logging` would print it all, secrets too
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{text} (its values cannot be shown: {type(error).__name__})"


class Text(logging.Formatter):
    """Lines for people. A record begins with its date in the first column, each line of a traceback with four spaces:
    nothing that came from outside can look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record)
        head = f"{time} {record.levelname:<7} {visible(record.name)}: {short(record.getMessage(), LONGEST_VALUE)}"
        trace = short(_trace(record), LONGEST_TRACE, keep="\n")
        return "\n    ".join([head, *trace.splitlines()])


class Json(logging.Formatter):
    """One object a line. Texts are escaped before they become JSON, so that a field can be shown on a terminal, too."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": visible(record.name),
            "message": short(record.getMessage(), LONGEST_VALUE),
            "process": record.process,
        }
        if trace := _trace(record):
            event["exception"] = short(trace, LONGEST_TRACE, keep="\n")
        return json.dumps(event, ensure_ascii=False)


def _trace(record: logging.LogRecord) -> str:
    return "\n".join(text for text in (record.exc_text, record.stack_info) if text)


def visible(text: str, keep: str = "") -> str:
    r"""`text` with `\n`, `\x1b`, `\u202e` and the like for each character that shows nothing or moves others."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def short(text: str, limit: int, keep: str = "") -> str:
    """`text`, visible, with the middle left out when it has more than `limit` bytes."""
    shown = visible(text, keep) if len(text) <= limit else ""
    if len(text) <= limit and len(shown.encode()) <= limit:
        return shown
    half = limit // 2
    begin = visible(text[:half], keep).encode()[:half].decode(errors="ignore")
    end = visible(text[-half:], keep).encode()[-half:].decode(errors="ignore")
    return f"{begin} … (shortened: {len(text):,} characters) … {end}"
