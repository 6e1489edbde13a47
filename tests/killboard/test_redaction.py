"""Nothing secret stays in a text, however it is written; an ordinary text stays as it is."""

import json
import random
import re
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings

from killboard.redaction import configured_secrets, hide, spellings

LETTERS = "@:/%#?äßж中😀\u00a0\u3000abcXYZ0189.-_~!$,;()[]{}|<>^`*'\""  # a space and '&' end a value
EVERYWHERE = LETTERS + " &=+\\"
FRAMES = [
    "dial redis://user:{}@host:6379/0 failed",
    "amqps://:{}@host/",
    "'postgresql://u:{}@db:5432/b'",
    "https://u:{}@host/path?x=1",
    "GET /x?password={} HTTP/1.1",
    "conninfo: host=db password={} dbname=board",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    "bearer {}",
    "code_verifier={}",
    "refresh_token: {}",
    "access_token={}",
    "SECRET_KEY={}",
    "/sso/callback?code={}&state=1",
]


def passwords(letters: str, count: int) -> list[str]:
    chance = random.Random(20)
    return ["".join(chance.choice(letters) for _ in range(chance.randint(8, 30))) for _ in range(count)]


def written(password: str) -> list[str]:
    """Texts with the password, of which nothing is known but where it stands."""
    header = (b"authorization", f"Bearer {password}".encode())
    nested = json.dumps(json.dumps({"access_token": password}))
    return [
        *(frame.format(password) for frame in FRAMES),
        *(frame.format(quote(password)) for frame in FRAMES),
        quote(f"redis://u:{quote(password, safe='')}@host", safe=""),
        f"{[header]!r}",
        f"{ {'refresh_token': password}!r}",
        json.dumps({"access_token": password, "b": 1}),
        json.dumps({"access_token": password}, separators=(",", ":"), ensure_ascii=False),
        nested,
    ]


FRAME = "".join(written("|"))


def remains(password: str, shown: str) -> bool:
    """Whether five letters in a row are still there, as they are or percent-encoded; not counting the frame's own."""
    pieces = {text[at : at + 5] for text in (password, quote(password)) for at in range(len(text) - 4)}
    return any(piece in shown and piece not in FRAME for piece in pieces)


def test_of_a_thousand_passwords_none_stays_in_an_address_a_header_or_a_named_value() -> None:
    leaks = [
        (text, shown)
        for password in passwords(LETTERS, 1000)
        for text in written(password)
        if remains(password, shown := hide(text, None))
    ]
    assert leaks == []


def test_the_same_search_finds_them_where_only_an_at_sign_is_looked_for() -> None:
    """The known-wrong twin: from the colon to the first '@', as such filters are often written."""
    naive = re.compile(r"://([^:@/]*):[^@/]*@")
    leaking = [p for p in passwords(LETTERS, 1000) if remains(p, naive.sub("://****@", f"redis://u:{p}@host"))]
    assert len(leaking) > 100


def test_of_a_thousand_configured_secrets_none_stays_anywhere_in_any_spelling() -> None:
    leaks = []
    for secret in passwords(EVERYWHERE, 1000):
        known = spellings([secret, "another-one"])
        quoted = quote(secret, safe="")
        forms = [
            secret,
            quoted,
            quote(secret),
            quote_plus(secret),
            quote(quoted),
            repr(secret)[1:-1],
            ascii(secret)[1:-1],
        ]
        forms += [json.dumps(secret)[1:-1], repr(secret.encode())[2:-1], repr(repr(secret))[2:-2]]
        shown = [hide(f"= {form} =", known) for form in forms]
        leaks += [
            text for text in shown if "****" not in text or set(text) - set("= *\\\"'")
        ]  # quotes of a repr may stay
    assert leaks == []


def test_percent_codes_are_known_in_either_case() -> None:
    assert hide("x p%c3%a4ss%2Fw%2fd y", spellings(["päss/w/d"])) == "x **** y"


def test_of_two_secrets_the_longer_one_is_hidden_whole() -> None:
    assert hide("secret-and-more", spellings(["secret", "secret-and-more"])) == "****"


@pytest.mark.parametrize(
    "text",
    [
        "Uvicorn running on http://127.0.0.1:4000 (Press CTRL+C to quit)",
        '127.0.0.1:5000 - "GET /graphql?query=%7B%20a%20%7D HTTP/1.1" 200',
        "Following the log from 3fa1:12.",
        "Stored killmail 123 (sequence 8123) at position 55, of someone@example.org, in 0.02 s.",
        "feed@worker-1 ready.",
        "EVE's SSO failed: http://127.0.0.1:8900/v2/oauth/token: no connection",
        "R2Z2_URL: https://r2z2.zkillboard.com/ephemeral/8123.json answered 404.",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert hide(text, spellings(["another-one"])) == text


def test_a_token_and_the_rest_of_a_broken_address_are_known_by_their_looks() -> None:
    assert hide("got eyJhbGciOiJSUzI1.eyJzdWIiOiJD.c2ln-bmF0 back", None) == "got **** back"
    assert hide("Port could not be cast to integer value as 'pa/s'", None).endswith("integer value as ****")


def test_the_secrets_are_found_among_the_settings(settings: Any) -> None:
    settings.DATABASE_URL = "postgresql://killboard:db%40pass@db:5432/board?sslpassword=ke%2Fy"
    settings.RABBITMQ_URL = "amqps://u:r%2Fabbit@mq/"
    settings.REDIS_URL = "redis+sentinel://u:red%3Ais@h1:26379,h2:26379/mymaster/0"
    settings.SECRET_KEY, settings.METRICS_TOKEN = "k" * 50, "metrics-token-123"
    assert configured_secrets() >= {"db@pass", "ke/y", "r/abbit", "red:is", "k" * 50, "metrics-token-123"}
    settings.RABBITMQ_URL = "amqp://u:abc@mq/"  # three letters are in every other line
    assert "abc" not in configured_secrets()


def test_each_variable_that_may_hold_a_secret_is_a_setting_or_part_of_an_address() -> None:
    """Else its value would not be known here."""
    named = {
        name for name in settings.VARIABLES if any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "KEY"))
    }
    in_the_address = {"REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"}
    assert {name for name in named if not hasattr(settings, name)} <= in_the_address


def test_a_text_made_to_be_slow_is_not() -> None:
    known = spellings(["x" * 5 + str(number) + "abcdefgh" for number in range(8)])
    begin = time.process_time()
    for piece in ("://", "password=", 'password="\\', "a", "eyJ", 'token=\\"', "@://", "\\", "%3a%2f%2f", "xxxxx0abc"):
        hide(piece * (65_536 // len(piece)), known)
    assert time.process_time() - begin < 20  # it takes 0.4 s; what grows with the square takes minutes
