"""The log's handler: one event, one line, no secret, whoever logs what."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from killboard.logs import LONGEST_TRACE, LONGEST_VALUE, Json, Secrets, Text, configure, logging_config
from tests.killboard.test_redaction import LETTERS, passwords, remains

# What T25 asks for: ends of lines of every kind, a terminal's escape, directions, what shows nothing, half a letter.
NASTY = (
    "a\nb\rc\x0bd\x0ce\x1c\x1d\x1e\x85f\u2028g\u2029h\x1b[2Ji\x00\x07\x7f\x9bj\u202ek\u2066l\u061cm\u200bn\ufeffo\ud800"
)
FAKE = "2026-01-01 00:00:00,000 INFO    killboard: all is well"


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("password=hunter2")

    __repr__ = __str__


@contextmanager
def log(form: type[logging.Formatter]) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes as the board's handler does, and what it has written."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(form())
    handler.addFilter(Secrets())
    logger = logging.getLogger("kombu.anything")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield logger, out
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def written(form: type[logging.Formatter], *arguments: Any, error: BaseException | None = None, **more: Any) -> str:
    with log(form) as (logger, out):
        logger.error(*arguments, exc_info=error, **more)
    return out.getvalue()


def raised(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise OSError(f"again: {text}") from error
    except OSError as error:
        return error


@pytest.mark.parametrize("arguments", [(NASTY,), ("%s", NASTY), ("%(x)s", {"x": NASTY}), ("%s %r", NASTY, NASTY)])
def test_one_event_is_one_line_in_both_forms(arguments: tuple[Any, ...]) -> None:
    text = written(Text, *arguments)
    assert len(text.splitlines()) == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    data = written(Json, *arguments)
    assert len(data.splitlines()) == 1
    assert json.loads(data)["message"].isprintable()


def test_control_characters_are_escaped_and_other_letters_are_not() -> None:
    assert written(Text, "Ж中😀 %s", "x\n\x1b[31m\u202ey").endswith(" kombu.anything: Ж中😀 x\\n\\x1b[31m\\u202ey\n")
    assert written(Json, f"\n{FAKE}").count("\n") == 1


def test_the_handlers_of_python_alone_write_what_looks_like_a_record() -> None:
    """The known-wrong twin."""
    with log(logging.Formatter) as (logger, out):
        logger.handlers[0].filters.clear()
        logger.error("%s", f"x\n{FAKE}")
    assert FAKE in out.getvalue().splitlines()


def test_an_object_has_these_fields() -> None:
    event = json.loads(written(Json, "Stored %s.", 5))
    assert event.pop("time").endswith("Z")
    assert event.pop("process") > 0
    assert event == {"level": "ERROR", "logger": "kombu.anything", "message": "Stored 5."}
    event = json.loads(written(Json, "Oh", error=raised("boom")))
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert event["exception"].endswith("OSError: again: boom")


def test_a_traceback_has_lines_that_cannot_be_taken_for_records() -> None:
    text = written(Text, "Oh", error=raised(f"boom\n{FAKE}\r{FAKE}\u2028{FAKE}"))
    first, *rest = text.splitlines()
    assert first.endswith("Oh")
    assert len(rest) > 10
    assert all(line.startswith("    ") for line in rest)
    assert json.loads(written(Json, "Oh", error=raised(f"boom\r{FAKE}")))["exception"].count("\r") == 0


def test_what_is_long_is_cut_in_its_middle() -> None:
    for letter in ("x", "ж", "\u202e", "😀", '"'):
        message = json.loads(written(Json, "begin %s end", letter * 10**6))["message"]
        assert len(message.encode()) < LONGEST_VALUE + 60
        assert message.startswith("begin ")
        assert message.endswith(" end")
        assert "shortened: 1,000,010 characters" in message
    assert len(written(Text, "x" * 10**6)) < LONGEST_VALUE + 200
    text = written(Text, "Oh", error=raised("y" * 10**6 + "the end"))
    assert len(text) < LONGEST_TRACE + 1000
    assert text.endswith("the end\n")


def test_a_secret_is_hidden_before_the_text_is_cut() -> None:
    secret = "s" * 40 + "tail-of-it"
    for at in range(LONGEST_VALUE // 2 - 70, LONGEST_VALUE // 2 + 10, 3):
        assert "sssss" not in written(Text, "x" * at + f" token={secret} " + "y" * 5000)


@pytest.mark.parametrize("form", [Text, Json])
def test_passwords_are_in_no_message_argument_or_traceback(form: type[logging.Formatter]) -> None:
    for password in passwords(LETTERS, 100):
        address = f"redis://board:{password}@redis.example.org:6379/0"
        text = "".join(
            [
                written(form, address),
                written(form, "dialling %s", address),
                written(form, "dialling %(where)r", {"where": address}),
                written(form, "dialling", error=raised(address)),
                written(form, "answered %s", {"refresh_token": password}, stack_info=True),
            ]
        )
        assert not remains(password, text)
        assert text.count("****") >= 5


def test_a_record_that_cannot_be_written_is_written_without_its_values(capsys: Any) -> None:
    """Python's handler would print the values to stderr, with a traceback."""
    text = written(Text, "number %d", "password=hunter2")
    text += written(Text, "%s", Hostile()) + written(Text, Hostile())
    assert "number %d (its values cannot be shown: TypeError)" in text
    assert text.count("\n") == 3
    assert "hunter2" not in text + capsys.readouterr().err


def test_other_handlers_get_the_record_without_secrets_too() -> None:
    seen: list[logging.LogRecord] = []
    with log(Text) as (logger, _):
        later = logging.Handler()
        later.emit = seen.append  # type: ignore[method-assign]
        logger.addHandler(later)
        try:
            logger.error("at %s", "amqp://u:hunter2@mq/", exc_info=raised("amqp://u:hunter2@mq/"))
        finally:
            logger.removeHandler(later)
    assert seen[0].getMessage() == "at amqp://****@mq/"
    assert "hunter2" not in str(seen[0].exc_text)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    names = ["", "uvicorn", "uvicorn.access", "django", "django.server", "multiprocessing"]
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in names}
    hooks = sys.excepthook, threading.excepthook
    yield
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers[:], logging.getLogger(name).propagate = handlers, propagate
    sys.excepthook, threading.excepthook = hooks


@pytest.mark.usefixtures("logging_restored")
def test_loggers_that_bring_handlers_lose_them_and_a_log_that_is_off_stays_off() -> None:
    server, access = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access")
    server.addHandler(logging.StreamHandler())
    access.handlers.clear()  # a server of another test may have had some
    server.propagate = access.propagate = False
    configure(logging_config("INFO", "json"))
    assert (server.handlers, server.propagate) == ([], True)
    assert (access.handlers, access.propagate) == ([], False)  # uvicorn --no-access-log
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler.formatter, Json)


@pytest.mark.usefixtures("logging_restored")
def test_what_nobody_catches_is_logged(capsys: Any) -> None:
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    configure(logging_config("INFO", "json"))
    error = raised("redis://u:hunter2@host/")
    sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=exec, args=["raise ValueError('redis://u:hunter2@host/')"], name="one")
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["level"] for event in events] == ["CRITICAL", "CRITICAL"]
    assert "thread one ends" in events[1]["message"]
    assert "redis://****@host/" in events[0]["exception"]
    assert "hunter2" not in "".join(lines)
