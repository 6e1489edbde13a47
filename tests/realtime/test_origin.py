"""Who may open a socket from a web page."""

from urllib.parse import urlparse

import pytest
from channels.security.websocket import OriginValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.origin import Origins

HOST = "board.example:4000"
ORIGINS = Origins(["board.example", ".boards.example", "[::1]"], ["https://friend.example", "http://localhost:3000"])

# T7: origin, whether it is let in
TWELVE = [
    (None, True),  # a bot
    ("http://board.example:4000", True),
    ("https://BOARD.example:4000", True),
    ("https://friend.example", True),
    ("http://localhost:3000", True),
    ("http://friend.example", False),  # another scheme
    ("https://friend.example:8443", False),  # another port
    ("http://board.example", False),
    ("https://evil.example", False),
    ("https://friend.example.evil.example", False),
    ("null", False),
    ("http://[::1", False),
]


@pytest.mark.parametrize(("origin", "allowed"), TWELVE)
def test_twelve_origins_are_judged_rightly(origin, allowed):
    assert ORIGINS.allows(origin, HOST, secure=False) is allowed


def test_validator_of_channels_would_judge_some_of_them_wrongly_or_raise():
    validator = OriginValidator(None, ["board.example", "friend.example", "http://localhost:3000"])

    def judge(origin):
        try:
            return validator.valid_origin(None if origin is None else urlparse(origin))
        except ValueError:
            return "raised"

    wrong = {origin for origin, allowed in TWELVE if judge(origin) is not allowed}
    assert wrong == {
        None,
        "http://friend.example",
        "https://friend.example:8443",
        "http://board.example",
        "http://[::1",
    }


@pytest.mark.parametrize(
    ("origin", "host", "secure", "allowed"),
    [
        ("https://board.example", "board.example", True, True),
        ("https://board.example:443", "board.example", True, True),
        ("https://board.example", "board.example:443", True, True),
        ("http://board.example", "board.example", True, False),  # a page that anyone on the way may have changed
        ("http://board.example", "board.example", False, True),
        ("https://board.example", "board.example", False, True),  # TLS ends at a proxy
        ("http://board.example:80", "board.example", False, True),
        ("http://board.example:443", "board.example", False, False),
        ("ftp://board.example", "board.example", False, False),
        ("https://a.boards.example", "a.boards.example", True, True),
        ("https://a.boards.example", "b.boards.example", True, False),
        ("https://board.example.", "board.example.", True, True),
        ("http://[::1]:4000", "[::1]:4000", False, True),
        ("http://[::1]:4000", "[::2]:4000", False, False),
    ],
)
def test_page_of_the_same_host_and_port_is_ours(origin, host, secure, allowed):
    assert ORIGINS.allows(origin, host, secure) is allowed


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4000", "127.0.0.1:4000", "boards.example.evil.example"])
def test_page_of_a_foreign_name_that_points_here_is_foreign(host):
    assert ORIGINS.allows(f"http://{host}", host, secure=False) is False


def test_allowed_hosts_may_be_any():
    assert Origins(["*"], []).allows("http://any.example", "any.example", secure=False) is True
    assert Origins(["*"], []).allows("http://any.example", "other.example", secure=False) is False
    assert Origins([], []).allows("http://any.example", "any.example", secure=False) is False


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("host", [None, "", "evil.example", "x y"])
def test_trusted_origin_and_program_may_call_any_host(host, secure):
    assert ORIGINS.allows("HTTPS://Friend.Example:443", host, secure) is True
    assert ORIGINS.allows(None, host, secure) is True


@pytest.mark.parametrize(
    "origin",
    [
        *["", " ", "null", "*", "board.example:4000", "//board.example:4000", "http://", "http:///", "http://:4000"],
        *["http://[::1", "http://[", "http://]", "http://[]", "http://[::1]x", "http://board.example:4000:4000"],
        *["http://board.example:4000/", "http://board.example:4000/x", "http://board.example:4000?", "http://*:4000"],
        *["http://board.example:4000#", "http://me@board.example:4000", "http://me:x@board.example:4000"],
        *["http://evil.example@board.example:4000", "http://board.example:4000\\@evil.example"],
        *["http://board.example:4000 http://board.example:4000", "http://board.example:4000, http://evil.example"],
        *["http://board.example:4000\n", " http://board.example:4000", "http://board.example:4000\x00"],
        *["http://board.example:", "http://board.example:port", "http://board.example:" + "4" * 5_000],
        *["http://boardexample:4000", "http://board.example:4000.evil.example", "http://b\u00f6ard.example:4000"],
        *["http\u017f://friend.example", "https://friend.example\u3002", "http://\ud800", "x" * 100_000],
    ],
    ids=lambda origin: ascii(origin[:30]),
)
@pytest.mark.parametrize("host", [HOST, None, "", "[::1", "evil.example"], ids=str)
def test_text_that_is_no_origin_is_refused(origin, host):
    assert ORIGINS.allows(origin, host, secure=False) is False


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters()) | st.from_regex(r"https?://[\[\]@:/.a-z0-9]*"), st.none() | st.text(st.characters()))
def test_any_text_is_answered(origin, host):
    assert ORIGINS.allows(origin, host, secure=False) in (True, False)


@given(st.text(st.characters()))
def test_no_host_makes_a_foreign_origin_ours(host):
    assert ORIGINS.allows("https://evil.example", host, secure=True) is False


@pytest.mark.parametrize(
    "origin", ["friend.example", "https://friend.example/", "https://*.friend.example", "", "null"]
)
def test_trusted_origin_that_is_none_is_refused_at_the_start(origin):
    with pytest.raises(ValueError, match="is not an origin; write it like"):
        Origins([], ["https://friend.example", origin])


def test_trusted_origin_may_have_a_scheme_of_an_application():
    origins = Origins([], ["chrome-extension://abcdefghijklmnop"])
    assert origins.allows("chrome-extension://abcdefghijklmnop", None, secure=True) is True
    assert origins.allows("chrome-extension://ponmlkjihgfedcba", None, secure=True) is False


def test_letter_that_only_looks_like_k_makes_another_origin():
    origins = Origins(["kill.example"], ["https://kill.example"])
    kelvin = "\u212aill.example"
    assert kelvin.lower() == "kill.example"
    assert origins.allows(f"https://{kelvin}", "kill.example", secure=True) is False
    assert origins.allows("https://kill.example", "kill.example", secure=True) is True
