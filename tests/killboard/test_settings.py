"""Settings: what is nonsense is refused, loudly, with the variable's name and without any password."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings

from killboard.debug import AddressesHidden
from killboard.environment import Environment, SettingError, masked, misspelt, read_dotenv
from killboard.settings import _load, _read

ROOT = Path(__file__).resolve().parents[2]
KEY = "k" * 50


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(**variables: str) -> dict[str, Any]:
        return _read(Environment({"DATA_DIR": str(tmp_path / "data")} | variables))

    return read


def refused(read: Any, **variables: str) -> str:
    with pytest.raises(SettingError) as caught:
        read(**variables)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_set_is_the_embedded_way(read: Any, tmp_path: Path) -> None:
    values = read()
    assert values["DATABASES"]["default"]["NAME"] == str(tmp_path / "data" / "killboard.sqlite3")
    assert values["CHANNEL_LAYERS"]["default"]["BACKEND"] == "channels.layers.InMemoryChannelLayer"
    assert (values["FEED_ASKED"], values["PORT"], values["DEBUG"], values["HOST"]) == ("auto", 4000, True, "127.0.0.1")


def test_each_service_alone_makes_its_part_real(read: Any) -> None:
    database = read(DATABASE_URL="postgresql://u:p%40ss@db/board", SECRET_KEY=KEY)
    assert database["DATABASES"]["default"]["PASSWORD"] == "p@ss"
    assert "InMemory" in database["CHANNEL_LAYERS"]["default"]["BACKEND"]
    redis = read(REDIS_URL="redis://host:6379/0", SECRET_KEY=KEY)
    assert "RedisPubSub" in redis["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert "sqlite3" in redis["DATABASES"]["default"]["ENGINE"]
    rabbitmq = read(RABBITMQ_URL="amqp://host", SECRET_KEY=KEY)
    assert rabbitmq["RABBITMQ_URL"] == "amqp://host"
    assert (rabbitmq["FEED"], rabbitmq["DEBUG"]) == ("live", False)


def test_v1_redis_pubsub_without_an_address_is_refused(read: Any) -> None:
    assert refused(read, USE_REDIS_PUBSUB="true").startswith("REDIS_URL: is missing while USE_REDIS_PUBSUB=true")


@pytest.mark.parametrize("spelling", ["True", "1", "yes", "on", " TRUE "])
def test_v2_the_usual_spellings_of_true(read: Any, spelling: str) -> None:
    assert read(USE_REDIS_PUBSUB=spelling, REDIS_URL="redis://host", SECRET_KEY=KEY)["USE_REDIS_PUBSUB"] is True


@pytest.mark.parametrize("spelling", ["False", "0", "no", "off", "FALSE"])
def test_v2_the_usual_spellings_of_false(read: Any, spelling: str) -> None:
    values = read(USE_REDIS_PUBSUB=spelling, REDIS_URL="redis://host", SECRET_KEY=KEY)
    assert (values["USE_REDIS_PUBSUB"], values["REDIS"]) == (False, None)
    assert "InMemory" in values["CHANNEL_LAYERS"]["default"]["BACKEND"]


def test_v2_ture_is_refused(read: Any) -> None:
    message = refused(read, USE_REDIS_PUBSUB="ture", REDIS_URL="redis://host")
    assert message.startswith("USE_REDIS_PUBSUB: 'ture' is neither true nor false; write USE_REDIS_PUBSUB=true or ")


@pytest.mark.parametrize(
    "address",
    [
        "localhost:6379",
        "http://host",
        "redis://host:99999",
        "redis://u:hunter2@x@host",
        "redis://",
        "redis://:hun#ter2@h",
    ],
)
@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL", "RABBITMQ_URL", "R2Z2_URL"])
def test_v3_a_malformed_address_is_refused_with_an_example(read: Any, name: str, address: str) -> None:
    scheme = {"REDIS_URL": "redis", "DATABASE_URL": "postgresql", "RABBITMQ_URL": "amqp", "R2Z2_URL": "https"}[name]
    message = refused(read, **{name: address.replace("redis", scheme).replace("http://", "gopher://")})
    assert message.startswith(f"{name}: ")
    assert f"{scheme}://" in message
    assert "hunter2" not in message
    assert "ter2" not in message


def test_v4_a_database_address_needs_a_known_scheme_and_a_database(read: Any) -> None:
    assert "must begin with postgresql://" in refused(read, DATABASE_URL="mysql://host/board")
    assert "names no database" in refused(read, DATABASE_URL="postgresql://host/", SECRET_KEY=KEY)


def test_v6_a_weak_key_is_refused_when_debug_is_off(read: Any) -> None:
    assert refused(read, DEBUG="false").startswith("SECRET_KEY: ")
    assert refused(read, DEBUG="false", SECRET_KEY="k" * 49).startswith("SECRET_KEY: ")
    assert read(DEBUG="false", SECRET_KEY=KEY)["SECRET_KEY"] == KEY


def test_v7_any_host_is_warned_about_when_debug_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"ALLOWED_HOSTS": "*", "DEBUG": "false", "SECRET_KEY": KEY, "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert any(warning.startswith("ALLOWED_HOSTS: '*'") for warning in _load()[1])
    monkeypatch.setenv("ALLOWED_HOSTS", "board.example.org")
    assert not any(warning.startswith("ALLOWED_HOSTS") for warning in _load()[1])


def test_v8_dotenv_takes_quotes_spaces_crlf_a_bom_and_doubled_lines(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b'\xef\xbb\xbfPORT=1\r\nCONTACT="me@example.com"   \r\nPORT=4001 \r\n# REDIS_URL=x\r\nEMPTY=\r\n')
    assert read_dotenv(file) == {"PORT": "4001", "CONTACT": "me@example.com", "EMPTY": ""}
    assert read_dotenv(tmp_path / "none") == {}
    file.write_text("PORT=4001\nDATABASE_URL: postgresql://u:hunter2@host/db\n")
    with pytest.raises(SettingError, match=r"^\.env, line 2: cannot be read; write NAME=value\.$"):
        read_dotenv(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="cannot be read as UTF-8"):
        read_dotenv(file)


def test_v8_a_misspelt_name_is_warned_about() -> None:
    written = {"REDIS_ULR": "x", "REDIS_URL": "y", "PATH": "z"}
    assert misspelt(written, ["REDIS_URL", "PORT"]) == [
        ".env: REDIS_ULR is not a setting of the board; did you mean REDIS_URL?"
    ]


def test_v9_a_password_beside_the_address_is_honoured_or_refused(read: Any) -> None:
    values = read(REDIS_URL="redis://host:6379/0", REDIS_PASSWORD="p@s:s/#?", SECRET_KEY=KEY)
    assert values["REDIS_URL"] == "redis://:p%40s%3As%2F%23%3F@host:6379/0"
    message = refused(read, REDIS_URL="redis://:one@host:6379/0", REDIS_PASSWORD="two")
    assert message == "REDIS_PASSWORD: REDIS_URL holds a password already; keep only one of the two."


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://user:hunter2@localhost:6379", "redis://****@localhost:6379"),
        ("redis://:hunter2@localhost:6379/3", "redis://****@localhost:6379/3"),
        ("redis://hunter2@localhost", "redis://****@localhost"),
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("rediss://user:hunter2@[::1]:6380/0?password=hunter2", "rediss://****@[::1]:6380/0"),
        ("redis+sentinel://u:hunter2@a:26379,b:26379/mymaster/0", "redis+sentinel://****@a:26379,b:26379/mymaster/0"),
        ("redis://user:1/hunter2@localhost", "****"),
        ("redis://user:1#hunter2@localhost", "****"),
        ("redis://user:1?hunter2@localhost", "****"),
        ("redis://user:1#hunter2", "****"),
        ("user:hunter2@localhost:6379", "****"),
        ("redis://[hunter2", "****"),
        ("hunter2", "****"),
        ("", "****"),
    ],
)
def test_t19_an_address_is_shown_without_user_and_password(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_t19_a_thousand_passwords_are_never_shown() -> None:
    chance = random.Random(19)
    for _ in range(1000):
        password = "".join(chance.choices("@:/%#?[]& é密Ω\u2100kK2", k=chance.randint(4, 24)))
        for written in (password, quote(password, safe="")):
            for address in (f"redis://user:{written}@cache:6379/0", f"redis://cache:6379/0?password={written}"):
                assert masked(address) in ("redis://****@cache:6379/0", "redis://cache:6379/0", "****"), address
        # Escaped, as is asked for, the rest is shown.
        assert masked(f"redis://user:{quote(password, safe='')}@cache:6379/0") == "redis://****@cache:6379/0"


def test_a_worker_has_a_name_that_nothing_escapes(read: Any) -> None:
    assert read()["WORKER_ID"] == ""
    assert read(WORKER_ID="eu-west.2_b")["WORKER_ID"] == "eu-west.2_b"
    for name in ("a b", "a/b", "ß", "a" * 65, "a\nb"):
        assert refused(read, WORKER_ID=name).startswith("WORKER_ID: ")


def test_a_token_for_metrics_is_long_and_is_not_repeated(read: Any) -> None:
    assert read(METRICS_TOKEN="0123456789abcdef")["METRICS_TOKEN"] == "0123456789abcdef"
    for token in ("hunter2", "hunter2-Łukasz-hunter2", "hunter2 hunter2 hunter2"):
        message = refused(read, METRICS_TOKEN=token)
        assert message.startswith("METRICS_TOKEN: must have at least 16 characters")
        assert "hunter2" not in message


def test_logs_are_text_or_json(read: Any) -> None:
    assert (read()["LOG_FORMAT"], read(LOG_FORMAT="JSON")["LOG_FORMAT"]) == ("text", "json")
    assert refused(read, LOG_FORMAT="xml") == "LOG_FORMAT: 'xml' is none of text, json."


def test_feed_auto_and_recorded_are_refused_with_services(read: Any) -> None:
    assert refused(read, FEED="auto", RABBITMQ_URL="amqp://host").startswith("FEED: auto is for a board without")
    assert "invented killmails" in refused(read, FEED="recorded", DATABASE_URL="postgresql://host/db")
    assert "none of auto, live, recorded, off" in refused(read, FEED="on")


def test_a_recording_has_a_database_of_its_own(read: Any, tmp_path: Path) -> None:
    recorded = read(FEED="recorded")["DATABASES"]["default"]["NAME"]
    assert recorded == str(tmp_path / "data" / "recorded.sqlite3")
    (tmp_path / "data" / "feed").write_text("recorded")
    assert read()["DATABASES"]["default"]["NAME"] == recorded
    assert read(FEED="live")["DATABASES"]["default"]["NAME"] != recorded


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "4000.5", "9" * 5000])
def test_a_port_that_is_none_is_refused(read: Any, port: str) -> None:
    assert "is not a whole number from 1 to 65535" in refused(read, PORT=port)


def test_the_feed_is_read_over_tls_except_from_this_machine(read: Any) -> None:
    assert read(R2Z2_URL="http://127.0.0.1:9/")["R2Z2_URL"] == "http://127.0.0.1:9"
    assert refused(read, R2Z2_URL="http://169.254.169.254").startswith("R2Z2_URL: must begin with https://")
    assert read()["ESI_URL"] == "https://esi.evetech.net"
    assert refused(read, ESI_URL="http://169.254.169.254").startswith("ESI_URL: must begin with https://")


SSO = {"EVE_CLIENT_ID": "abc", "TOKEN_KEYS": "A" * 43 + "="}


def test_nobody_can_log_in_until_an_application_is_named(read: Any) -> None:
    assert (read()["EVE_CLIENT_ID"], read()["TOKEN_KEYS"]) == ("", [])
    values = read(**SSO, PORT="4001")
    assert values["EVE_CALLBACK_URL"] == "http://localhost:4001/auth/callback"
    assert values["SSO_URL"] == "https://login.eveonline.com"
    assert not values["SESSION_COOKIE_SECURE"]
    behind_tls = read(**SSO, EVE_CALLBACK_URL="https://board.example/auth/callback")
    assert (behind_tls["SESSION_COOKIE_SECURE"], behind_tls["CSRF_COOKIE_SECURE"]) == (True, True)


def test_tokens_are_not_kept_without_a_key_of_their_own(read: Any) -> None:
    assert refused(read, EVE_CLIENT_ID="abc").startswith("TOKEN_KEYS: is missing while EVE_CLIENT_ID is set; make one")
    for key in ("A" * 44, "short", "é" * 43 + "=", SSO["TOKEN_KEYS"] + ",x"):
        message = refused(read, EVE_CLIENT_ID="abc", TOKEN_KEYS=key)
        assert message.startswith("TOKEN_KEYS: each must be 32 bytes in base64; make one with: python3 -c")
        assert key not in message
    assert read(**SSO | {"TOKEN_KEYS": f"{'A' * 43}=, {'B' * 43}="})["TOKEN_KEYS"] == ["A" * 43 + "=", "B" * 43 + "="]


def test_where_people_come_back_to_is_said_outright(read: Any) -> None:
    public = {"DEBUG": "false", "SECRET_KEY": KEY, **SSO}
    assert refused(read, **public).startswith("EVE_CALLBACK_URL: is missing; write it as at EVE")
    callback = "EVE_CALLBACK_URL"
    assert refused(read, **SSO, **{callback: "http://board.example/auth/callback"}).startswith(
        f"{callback}: must begin"
    )
    assert refused(read, **SSO, **{callback: "https://board.example/"}).startswith(f"{callback}: must be the board's")
    assert refused(read, **SSO, **{callback: "http://localhost/auth/callback/"}).startswith(f"{callback}: must be the")


def test_contact_goes_into_a_header_so_it_must_be_ascii(read: Any) -> None:
    assert refused(read, CONTACT="Łukasz").startswith("CONTACT: is sent in a header")
    assert refused(read, CONTACT="a\x00b").startswith("CONTACT: ")
    assert read(CONTACT="me@example.com")["CONTACT"] == "me@example.com"


def test_errors_are_not_shown_to_everybody(read: Any) -> None:
    message = refused(read, HOST="0.0.0.0")
    assert message.startswith("DEBUG: true shows errors to everybody")
    assert message.endswith("set DEBUG=false and REDIS_URL.")
    assert read(HOST="0.0.0.0", DEBUG="false", SECRET_KEY=KEY)["HOST"] == "0.0.0.0"


def test_the_page_for_errors_hides_addresses() -> None:
    shown = AddressesHidden().get_safe_settings()
    for name in ("REDIS_URL", "RABBITMQ_URL", "DATABASE_URL", "REDIS", "METRICS_TOKEN", "CHANNEL_LAYERS", "SECRET_KEY"):
        assert shown[name] == AddressesHidden.cleansed_substitute, name


def test_a_folder_that_cannot_be_made_is_refused(read: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(read, DATA_DIR=str(tmp_path / "file" / "data")).startswith("DATA_DIR: ")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"USE_REDIS_PUBSUB": "ture"}, "USE_REDIS_PUBSUB: 'ture' is neither true nor false; "),
        ({"USE_REDIS_PUBSUB": "true", "REDIS_URL": ""}, "REDIS_URL: is missing while USE_REDIS_PUBSUB=true; "),
    ],
)
def test_v1_v2_a_refusal_ends_the_process_with_one_line_and_exit_code_2(variables: dict[str, str], line: str) -> None:
    command = [sys.executable, "manage.py", "check"]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"killboard does not start: {line}")
    assert result.stderr.count("\n") == 1


def test_env_example_names_every_setting_and_no_other() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(named) == sorted(set(settings.VARIABLES))
    assert len(named) == len(set(named))
