"""What lies under deploy/, and compose.yaml: read by the programs that it is for, and as the documents say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from django.conf import settings

from tests.e2e.nginx import write_configuration
from tests.e2e.processes import ROOT, UVICORN_OPTIONS

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
SERVER = " ".join(["uvicorn killboard.asgi:application --port 4000", *UVICORN_OPTIONS])
COMMANDS = {
    SERVER,
    "celery -A killboard worker -Q feed -n feed@%h -l info",
    "celery -A killboard worker -Q bulk -n bulk@%h -l info",
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
