"""The embedded way's worker and beat: nothing that happens to a message, or to them, ends the feed."""

import json
import time
from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection
from kombu.transport import filesystem

from killboard import embedded, file_queue


@pytest.fixture
def channel(tmp_path, request):
    transport = getattr(request, "param", "killboard.file_queue:Transport")
    folder = str(tmp_path)
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    with Connection("filesystem://localhost", transport=transport, transport_options=options) as connection:
        yield connection.channel()


def _messages(channel):
    return sorted(path.name for path in Path(channel.data_folder_in).glob("*.msg*"))


def test_message_goes_through_the_queue_of_files_whole(channel):
    channel._put("bulk", {"id": 1, "text": "Zoë"})
    channel._put("feed", {"id": 2})
    assert channel._get("bulk") == {"id": 1, "text": "Zoë"}
    with pytest.raises(Empty):
        channel._get("bulk")
    assert channel._get("feed") == {"id": 2}
    assert _messages(channel) == []


@pytest.mark.parametrize("text", ["", '{"id": ', "[1,"])
def test_damaged_message_is_dropped_and_the_next_is_had(channel, caplog, text):
    Path(channel.data_folder_in, "0_damaged.bulk.msg").write_text(text)
    channel._put("bulk", {"id": 1})
    assert channel._get("bulk") == {"id": 1}
    assert "A damaged message of bulk was dropped" in caplog.text


def test_message_is_seen_by_nobody_before_it_is_whole(channel, monkeypatch):
    seen = []

    def dumps(payload):
        seen.append(_messages(channel))
        return "{}"

    monkeypatch.setattr(file_queue.json, "dumps", dumps)
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, target: seen.append(_get_nothing(channel)) or replace(self, target)
    )
    channel._put("bulk", {"id": 1})
    assert seen == [[], True]
    assert len(_messages(channel)) == 1


def _get_nothing(channel):
    with pytest.raises(Empty):
        channel._get("bulk")
    return True


@pytest.mark.parametrize("channel", ["filesystem"], indirect=True)
def test_kombus_own_queue_of_files_raises_for_half_a_message(channel):
    """Known to be wrong: the error ended the worker, and the feed with it."""
    assert type(channel) is filesystem.Channel
    Path(channel.data_folder_in, "0_half.bulk.msg").write_text('{"id": ')
    with pytest.raises(json.JSONDecodeError):
        channel._get("bulk")


def test_worker_and_beat_that_end_by_themselves_are_started_again(monkeypatch, caplog):
    started = []

    class Ending:
        def __init__(self, name):
            self.name = name

        def start(self, **_):
            started.append(self.name)
            if self.name == "beat":
                raise OSError("disk full")

        def stop(self, **_):
            pass

    monkeypatch.setattr(embedded, "RESTART", 0.01)
    monkeypatch.setattr(embedded, "_worker", lambda app, url: Ending("worker"))
    monkeypatch.setattr(embedded, "Service", lambda app, **_: Ending("beat"))
    until = time.monotonic() + 60
    with embedded.Worker("http://127.0.0.1:1"):
        while min(started.count("worker"), started.count("beat")) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert min(started.count("worker"), started.count("beat")) >= 3
    assert "celery-worker has ended by itself; starting it again." in caplog.text
    ended = len(started)
    time.sleep(0.1)
    assert len(started) == ended
