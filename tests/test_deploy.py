"""What lies under deploy/, and compose.yaml: read by the programs that it is for, and as the documents say."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml
from django.conf import settings

from tests.e2e.nginx import write_configuration
from tests.e2e.processes import ROOT, UVICORN_OPTIONS
from tests.e2e.sockets import wait_until
from tests.services.service import free_port

HALF = 2000 if os.environ.get("LONG") == "1" else 1000  # requests that never come whole
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
SERVER = " ".join(["uvicorn killboard.asgi:application --port 4000", *UVICORN_OPTIONS])
COMMANDS = {
    SERVER,
    "celery -A killboard worker -Q feed -n feed@%h -l info",
    "celery -A killboard worker -Q publish,esi,bulk -n bulk@%h -l info",
    "celery -A killboard beat -l info",
}


def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    configuration = write_configuration(tmp_path, 8443, [4000, 4001])
    result = subprocess.run(["/usr/sbin/nginx", "-t", "-c", configuration], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_nginx_refuses_a_file_with_a_word_that_it_does_not_know(tmp_path: Path) -> None:
    """Else the test above would be blind."""
    configuration = write_configuration(tmp_path, 8443, [4000, 4001])
    site = tmp_path / "killboard.conf"
    site.write_text(site.read_text().replace("proxy_read_timeout", "proxy_reed_timeout"))
    assert subprocess.run(["/usr/sbin/nginx", "-t", "-c", configuration], capture_output=True).returncode != 0


class Answer(BaseHTTPRequestHandler):
    """What stands behind nginx here: it says whom it was asked for."""

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/health/redis" else 200)
        self.end_headers()
        self.wfile.write(self.headers["X-Forwarded-For"].encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def nginx(folder: Path, changes: dict[str, str]) -> Iterator[int]:
    """The port at which nginx listens with our file, in which each key has become its value."""
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configuration = write_configuration(folder, port, [server.server_port] * 2)
        site = folder / "killboard.conf"
        for old, new in changes.items():
            assert old in site.read_text()
            site.write_text(site.read_text().replace(old, new))
        process = subprocess.Popen(["/usr/sbin/nginx", "-c", configuration])
        try:
            wait_until((folder / "nginx.pid").exists, seconds=60)
            yield port
        finally:
            process.terminate()
            process.wait(60)
            server.shutdown()


def ask(folder: Path, port: int, path: str, **headers: str) -> requests.Response:
    certificate = str(folder / "certificate.pem")
    return requests.get(f"https://localhost:{port}{path}", headers=headers, verify=certificate, timeout=60)


def hold_half(stack: ExitStack, port: int, number: int) -> socket.socket:
    """Half a request; of nine in ten already the handshake of TLS stays half."""
    held = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    if number % 10:
        held.send(b"\x16\x03\x01")
        return held
    context = ssl._create_unverified_context()
    held = stack.enter_context(context.wrap_socket(held, server_hostname="localhost"))
    held.send(b"GET /graphql HTTP/1.1\r\nHost: local")
    return held


def is_cut(held: socket.socket, seconds: float) -> bool:
    held.settimeout(seconds)
    try:
        return held.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def limited_to(limit: str) -> dict[str, str]:
    return {"client_header_timeout 10s": f"client_header_timeout {limit}"}


def test_half_requests_hold_up_nobody(tmp_path: Path) -> None:
    """Whoever waited for one of them to end would wait for minutes."""
    with nginx(tmp_path, limited_to("600s")) as port, ExitStack() as stack:
        half = [hold_half(stack, port, number) for number in range(HALF)]
        assert ask(tmp_path, port, "/graphql").status_code == 200
        assert not any(is_cut(held, 0.001) for held in half)  # they were held meanwhile


def test_half_requests_are_cut(tmp_path: Path) -> None:
    with nginx(tmp_path, limited_to("2s")) as port, ExitStack() as stack:
        half = [hold_half(stack, port, number) for number in range(20)]
        assert all(is_cut(held, 30) for held in half)


def test_half_requests_are_kept_where_the_limit_is_another_one(tmp_path: Path) -> None:
    """The known-wrong twin: nginx's own limit is a minute."""
    with nginx(tmp_path, {"client_header_timeout 10s;": ""}) as port, ExitStack() as stack:
        assert not is_cut(hold_half(stack, port, 0), 3)


def test_nginx_keeps_what_is_for_operators_from_others_and_says_who_asks(tmp_path: Path) -> None:
    with nginx(tmp_path, {"allow 127.0.0.1;": "", "allow ::1;": ""}) as port:
        for path in (
            "/admin/",
            "/%61dmin/",
            "//admin/login",
            "/metrics",
            "/health",
            "/health/ready",
            "/health/redis/../ready",
        ):
            assert ask(tmp_path, port, path).status_code == 403, path
        for path in ("/", "/graphql", "/health/redis/"):
            assert ask(tmp_path, port, path).status_code == 200, path
        assert ask(tmp_path, port, "/health/redis").status_code == 503
        claimed = ask(tmp_path, port, "/", **{"X-Forwarded-For": "10.9.8.7"})
        assert claimed.text == "10.9.8.7, 127.0.0.1"  # of which the board believes the last one


def ask_as_eve_sends_people_back(folder: Path, port: int) -> str:
    """What nginx's logs hold after it."""
    answer = "?code=canary-code&state=canary-state"
    for path in (f"/auth/callback{answer}", f"//auth/%63allback/{answer}", "/graphql?query=kept"):
        ask(folder, port, path, Referer=f"https://localhost/auth/callback{answer}")
    log = folder / "access.log"
    wait_until(lambda: "/graphql" in log.read_text(), seconds=20)  # it is written after the answer
    return log.read_text() + (folder / "error.log").read_text()


def test_nginx_keeps_what_eve_sends_people_back_with_out_of_its_logs(tmp_path: Path) -> None:
    with nginx(tmp_path, {}) as port:
        logs = ask_as_eve_sends_people_back(tmp_path, port)
    assert '"GET /auth/callback HTTP/1.1" 200' in logs
    assert '"GET /graphql?query=kept HTTP/1.1" 200' in logs
    assert '"https://localhost/auth/callback" "python-requests' in logs
    assert "canary" not in logs


@pytest.mark.parametrize("ours", ['"$killboard_request"', '"$killboard_referer"'])
def test_in_nginxs_own_format_it_would_stand_there(tmp_path: Path, ours: str) -> None:
    """The known-wrong twin."""
    with nginx(tmp_path, {ours: {'"$killboard_request"': '"$request"'}.get(ours, '"$http_referer"')}) as port:
        assert "canary-code" in ask_as_eve_sends_people_back(tmp_path, port)


@pytest.mark.parametrize(("level", "told"), [("crit", False), ("error", True)])
def test_nginx_keeps_it_out_where_no_server_answers_too(tmp_path: Path, level: str, told: bool) -> None:
    """At its own level it would tell all of a request that failed."""
    changes = {"error.log crit;": f"error.log {level};", "http://killboard;": f"http://127.0.0.1:{free_port()};"}
    with nginx(tmp_path, changes) as port:
        answer = ask(tmp_path, port, "/auth/callback?code=canary-code&state=canary-state")
        wait_until(lambda: "/auth/callback HTTP/1.1" in (tmp_path / "access.log").read_text(), seconds=20)
    assert answer.status_code == 502
    assert ("canary" in (tmp_path / "access.log").read_text() + (tmp_path / "error.log").read_text()) == told


def after_two_503s(folder: Path, port: int) -> list[int]:
    return [ask(folder, port, path).status_code for path in ("/health/redis", "/health/redis", "/", "/graphql")]


def test_a_503_of_the_board_is_an_answer_and_takes_no_server_away(tmp_path: Path) -> None:
    with nginx(tmp_path, {}) as port:
        assert after_two_503s(tmp_path, port) == [503, 503, 200, 200]


def test_counted_as_servers_that_are_down_two_503s_would_take_the_board_away(tmp_path: Path) -> None:
    """The known-wrong twin."""
    with nginx(tmp_path, {"proxy_next_upstream error timeout": "proxy_next_upstream error timeout http_503"}) as port:
        assert 502 in after_two_503s(tmp_path, port)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_its_units(unit: Path, tmp_path: Path) -> None:
    """With programs and a user that this machine has."""
    text = unit.read_text().replace("/srv/killboard/.venv/bin", str(Path(sys.executable).parent))
    text = text.replace("User=killboard", "User=root")
    name = unit.name.replace("@", "@1")
    (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--recursive-errors=no", str(tmp_path / name)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, [line for line in result.stderr.splitlines() if name in line]) == (0, [])


def test_units_start_what_the_documents_say() -> None:
    started = set()
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=/srv/killboard/\.venv/bin/(.*)$", unit.read_text(), re.MULTILINE)
        started.add(re.sub(r"-%i(?=@)", "", line).replace("%%h", "%h").replace("--port %i", "--port 4000"))
    assert started == COMMANDS
    operations = (ROOT / "docs/operations.md").read_text()
    assert all(f".venv/bin/{command}\n" in operations for command in COMMANDS)


def test_compose_starts_what_the_documents_say() -> None:
    started = {service["command"].removesuffix(" --host 0.0.0.0").strip() for service in OURS.values()}
    assert started == {*COMMANDS, "python manage.py migrate"}
    assert COMPOSE["services"]["server"]["command"].endswith("--host 0.0.0.0")


def test_compose_gives_the_board_settings_that_it_has_and_no_password_of_its_own() -> None:
    for service in OURS.values():
        assert set(service["environment"]) <= set(settings.VARIABLES)
    text = (ROOT / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "SECRET_KEY", "CONTACT"):
        assert re.findall(rf"\$\{{{name}:\?[^}}]+\}}", text), f"{name} must be asked for"
    assert not re.findall(r"(?i)password: +[a-z0-9]", text)


def test_compose_waits_for_what_is_needed_and_for_tasks_in_hand() -> None:
    for name, service in OURS.items():
        needs = {other: need["condition"] for other, need in service["depends_on"].items()}
        assert needs == (
            {"postgres": "service_healthy"}
            if name == "migrate"
            else {
                "migrate": "service_completed_successfully",
                "redis": "service_healthy",
                "rabbitmq": "service_healthy",
            }
        )
        assert int(service["stop_grace_period"].removesuffix("s")) > 20
    assert all("healthcheck" in COMPOSE["services"][name] for name in ("postgres", "redis", "rabbitmq", "server"))


def test_docker_compose_reads_its_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        print("docker compose is not here: it does not read compose.yaml; the tests above do.")
        return
    env = {"POSTGRES_PASSWORD": "a", "RABBITMQ_PASSWORD": "b", "SECRET_KEY": "c" * 50, "CONTACT": "d@example.org"}
    result = subprocess.run([docker, "compose", "config", "-q"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_image_holds_what_the_board_is_made_of_and_installs_it_as_run_does() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]}
    assert {"killboard", "killmails", "realtime", "health", "manage.py"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
    assert dockerfile.count("--require-hashes") == 2
    assert "\nUSER board\n" in dockerfile
