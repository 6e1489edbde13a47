"""CCP's static data over HTTP: which build is the newest, the download, and who is told of it."""

import io
import json
import logging
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest
from django.conf import settings as live_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now

from killmails import models
from killmails.errors import LoadUnderWay, Unacceptable, UpstreamRefused, UpstreamUnreachable
from killmails.management.commands.load_universe import Progress
from killmails.models import StaticDataBuild
from killmails.tasks import notice_static_data
from killmails.universe.lock import LOCK, one_load
from killmails.upstream.static_data import FILE, StaticData
from tests.killmails.sde import BUILD, small_sde, write_sde

LATEST = "/tranquility/latest.jsonl"
ZIP = f"/tranquility/{FILE.format(build=BUILD)}"


class FakeCcp(ThreadingHTTPServer):
    """Serves `files` with an ETag each; a `silent` one sends its head and half of its body, and no more."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.silent: set[str] = set()
        self.asked: list[tuple[str, int]] = []
        self.end = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def announce(self, build=BUILD):
        told = {"_key": "sde", "buildNumber": build, "releaseDate": "2026-10-26T11:00:00Z"}
        self.files[LATEST] = json.dumps(told).encode() + b"\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.files.get(self.path)
        etag = f'"{hash(body)}"'
        status = 404 if body is None else 304 if self.headers.get("If-None-Match") == etag else 200
        self.server.asked.append((self.path, status))
        body = (body or b"") if status == 200 else b""
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path in self.server.silent:
            self.wfile.write(body[: len(body) // 2])
            self.server.end.wait(60)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def ccp(tmp_path, settings):
    server = FakeCcp()
    server.announce()
    server.files[ZIP] = write_sde(tmp_path / "sde.zip", small_sde()).read_bytes()
    settings.STATIC_DATA_URL = server.url
    settings.FEED = "live"
    threading.Thread(target=server.serve_forever, args=[0.005], daemon=True).start()
    yield server
    server.end.set()
    server.shutdown()
    server.server_close()


def load() -> str:
    out = io.StringIO()
    call_command("load_universe", stdout=out)
    return out.getvalue()


# Asking CCP


def test_the_newest_build_is_told_once(ccp):
    latest = StaticData(ccp.url, "tests").fetch_latest("")
    assert (latest.build, latest.released_at.isoformat()) == (BUILD, "2026-10-26T11:00:00+00:00")
    assert StaticData(ccp.url, "tests").fetch_latest(latest.etag) is None


@pytest.mark.parametrize("body", [b"<html>", b'{"_key": "other"}', b'{"_key": "sde", "buildNumber": "1"}', b"[]", b""])
def test_a_pointer_without_a_build_is_refused(ccp, body):
    ccp.files[LATEST] = body
    with pytest.raises(Unacceptable):
        StaticData(ccp.url, "tests").fetch_latest("")


def test_the_zip_is_downloaded_as_it_is(ccp):
    into, told = io.BytesIO(), []
    assert StaticData(ccp.url, "tests").download(BUILD, into, lambda *so_far: told.append(so_far)) == FILE.format(
        build=BUILD
    )
    size = len(ccp.files[ZIP])
    assert into.getvalue() == ccp.files[ZIP]
    assert told[-1] == (size, size)


def test_a_download_that_stalls_is_given_up(ccp):
    ccp.silent.add(ZIP)
    begun = time.monotonic()
    with pytest.raises(UpstreamUnreachable, match="nothing came for 0 s"):
        StaticData(ccp.url, "tests", stall=0.3).download(BUILD, io.BytesIO())
    assert time.monotonic() - begun < 50  # it is silent for 60


def test_a_zip_beyond_the_cap_and_one_that_is_not_there_are_refused(ccp):
    with pytest.raises(Unacceptable, match="exceeds 10 bytes"):
        StaticData(ccp.url, "tests", cap=10).download(BUILD, io.BytesIO())
    with pytest.raises(UpstreamRefused, match="status 404"):
        StaticData(ccp.url, "tests").download(1, io.BytesIO())


# The command


@pytest.mark.django_db
def test_nothing_is_downloaded_when_the_newest_build_is_loaded(ccp):
    assert f"Build {BUILD} is loaded." in load()
    assert load() == f"Build {BUILD} is the newest, and it is loaded.\n"
    assert ccp.asked == [(LATEST, 200), (ZIP, 200), (LATEST, 304)]
    assert models.InventoryType.objects.get(pk=587).name == "Rifter"


@pytest.mark.django_db
def test_a_zip_of_another_build_is_refused(ccp):
    ccp.announce(BUILD + 1)
    ccp.files[f"/tranquility/{FILE.format(build=BUILD + 1)}"] = ccp.files[ZIP]
    with pytest.raises(CommandError, match=f"holds build {BUILD}, not {BUILD + 1}; nothing was loaded") as caught:
        load()
    assert caught.value.returncode == 2
    assert not models.InventoryType.objects.exists()
    assert not StaticDataBuild.objects.filter(loaded_at__isnull=False).exists()


@pytest.mark.django_db
def test_a_download_cut_short_loads_nothing_and_leaves_nothing(ccp, settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    ccp.files[ZIP] = ccp.files[ZIP][:-50]
    with pytest.raises(CommandError, match="is no zip, or not all of one; nothing was loaded"):
        load()
    assert not models.InventoryType.objects.exists()
    assert {path.name for path in settings.DATA_DIR.iterdir()} <= {"load_universe.lock"}


@pytest.mark.django_db
def test_two_loads_at_once_are_refused_with_the_holder(ccp):
    if connection.vendor == "postgresql":
        other = psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None})
        other.execute("SELECT pg_advisory_lock(%s, %s)", LOCK)
        holder = f"backend {other.info.backend_pid} of "
        release = other.close
    else:
        context = one_load(live_settings.DATA_DIR)
        context.__enter__()
        holder = "process "
        release = lambda: context.__exit__(None, None, None)  # noqa: E731
    try:
        with pytest.raises(CommandError, match=f"another load_universe is under way: {holder}") as caught:
            load()
    finally:
        release()
    assert caught.value.returncode == 1
    assert isinstance(caught.value.__cause__, LoadUnderWay)
    assert ccp.asked == []
    assert f"Build {BUILD} is loaded." in load()


# Once in a day


@pytest.mark.django_db
def test_a_new_build_is_told_in_the_log_once_in_a_day(ccp, caplog):
    with caplog.at_level(logging.WARNING):
        notice_static_data()
        notice_static_data()
    assert [record.getMessage() for record in caplog.records] == [
        f"Build {BUILD} of CCP's static data is there, and none is loaded: run `python manage.py load_universe`"
    ]
    assert ccp.asked == [(LATEST, 200)]
    build = StaticDataBuild.objects.get()
    assert (build.build, build.loaded_at) == (BUILD, None)


@pytest.mark.django_db
def test_a_newer_build_is_told_on_the_next_day_and_the_one_that_is_loaded_is_not(ccp, caplog):
    load()
    caplog.clear()
    for build, asked in ((BUILD, (LATEST, 304)), (BUILD + 1, (LATEST, 200))):
        ccp.announce(build)
        notice_static_data()
        assert ccp.asked[-1] != asked  # it is the same day
        StaticDataBuild.objects.update(noticed_at=Now() - timedelta(hours=24))
        with caplog.at_level(logging.WARNING):
            notice_static_data()
        assert ccp.asked[-1] == asked
        assert len(caplog.messages) == build - BUILD
    newer = f"Build {BUILD + 1} of CCP's static data is there, and build {BUILD} is loaded: "
    assert caplog.messages == [f"{newer}run `python manage.py load_universe`"]


@pytest.mark.django_db
def test_a_recorded_board_asks_nobody(ccp, settings):
    settings.FEED = "recorded"
    notice_static_data()
    assert ccp.asked == []


@pytest.mark.django_db
def test_when_ccp_is_away_it_is_asked_again(ccp, caplog):
    del ccp.files[LATEST]
    with caplog.at_level(logging.WARNING):
        notice_static_data()
    assert caplog.messages == [
        "CCP does not say which build of the static data is the newest; asked again later: status 404"
    ]
    ccp.announce()
    notice_static_data()
    assert StaticDataBuild.objects.get().build == BUILD


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere():
    bar, lines = Progress(Terminal()), Progress(io.StringIO())
    for progress in (bar, lines):
        for written in range(1, 101):
            progress.tell(written * 1_000_000, 100_000_000)
        progress.end()
    assert bar._out.getvalue().startswith("\r[" + " " * 40 + "] 1.0 MB of 100.0 ")
    assert bar._out.getvalue().endswith("\n")
    assert lines._out.getvalue().count("\n") == 10
    assert lines._out.getvalue().endswith("100% 100.0 MB of 100.0\n")
