"""The admin: looking at rejected packages, replaying and discarding them."""

import socket
import time

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killmails.admin.raw import SHOWN, as_text
from killmails.ingest.quarantine import replay
from killmails.models import Killmail, LogHead, RejectedKillmail
from tests.killmails.admin_driver import (
    REJECTED,
    act,
    assert_no_page,
    listed,
    log_in,
    messages,
    package,
    page,
    queries_of,
    reject,
    states,
)


@pytest.fixture
def queue():
    """Takes the ids out of the queue in which replays are asked for; empty before and after."""

    def take():
        with current_app.connection_for_read() as broker:
            bound = current_app.amqp.queues["bulk"](broker.default_channel)
            bound.declare()
            ids = []
            while message := bound.get(no_ack=True):
                assert message.headers["task"] == "killmails.tasks.replay_rejected"
                ids.append(message.decode()[0][0])
            return ids

    take()
    yield take
    take()


@pytest.mark.django_db
def test_rejected_packages_are_filtered_by_reason_and_state(admin_client):
    ids = [reject(n, reason=reason, state=state).pk for n, (reason, state) in enumerate(
        [("NOT_JSON", "OPEN"), ("BAD_FIELD", "OPEN"), ("BAD_FIELD", "DISCARDED")], start=1
    )]  # fmt: skip
    assert listed(admin_client, REJECTED) == ids[::-1]
    assert listed(admin_client, REJECTED, reason="BAD_FIELD") == [ids[2], ids[1]]
    assert listed(admin_client, REJECTED, reason="BAD_FIELD", state__exact="OPEN") == [ids[1]]
    assert listed(admin_client, REJECTED, q="3") == [ids[2]]


@pytest.mark.django_db
def test_list_of_rejected_packages_leaves_their_bytes_alone(admin_client):
    reject(raw=b"x" * 1000)
    rows = [row["sql"] for row in queries_of(admin_client, REJECTED) if '"raw"' in row["sql"]]
    assert rows == []


@pytest.mark.django_db
def test_page_shows_the_reason_and_the_first_64_kib_of_the_bytes(admin_client):
    raw = b"<i>" + b"a" * SHOWN + b"END"
    rejected = reject(raw=raw, reason="TOO_LARGE", detail="<b>much</b>")
    html = page(admin_client, f"{REJECTED}{rejected.pk}/change/")
    assert "TOO_LARGE" in html
    assert "&lt;b&gt;much&lt;/b&gt;" in html
    assert f">&lt;i&gt;{'a' * (SHOWN - 3)}</pre>" in html
    response = admin_client.get(f"{REJECTED}{rejected.pk}/raw/")
    assert response.content == raw
    assert_no_page(response, f"rejected-{rejected.pk}.bin")


def test_bytes_that_are_not_seen_are_shown_as_escapes():
    shown = as_text(b"a\x00\x1b[31m\xff\r\n\xe2\x80\xaeb\xc3\xa9")
    assert (shown.text, shown.size, shown.cut) == ("a\\x00\\x1b[31m\\xff\\r\n\\u202eb\u00e9", 16, False)


@pytest.mark.django_db(transaction=True)
def test_replay_queues_each_package_after_the_commit_and_logs_the_user(admin_client, admin_user, queue):
    rejected = [reject(number) for number in range(1, 4)]
    response = act(admin_client, "replay_selected", rejected[:2])
    assert messages(response) == ["Queued for replay: 2 packages."]
    assert states() == ["QUEUED", "QUEUED", "OPEN"]
    assert sorted(queue()) == [rejected[0].pk, rejected[1].pk]
    logged = LogEntry.objects.order_by("object_id").values_list("user", "object_id", "change_message")
    assert sorted(logged) == [
        (admin_user.pk, str(row.pk), "Queued for replay.") for row in sorted(rejected[:2], key=lambda row: str(row.pk))
    ]
    history = page(admin_client, f"{REJECTED}{rejected[0].pk}/history/")
    assert "Queued for replay." in history


@pytest.mark.django_db(transaction=True)
def test_replay_leaves_alone_what_is_stored_or_queued(admin_client, queue):
    rejected = [reject(number, state=state) for number, state in enumerate(RejectedKillmail.State.values, start=1)]
    assert states() == ["OPEN", "QUEUED", "STORED", "DISCARDED"]
    response = act(admin_client, "replay_selected", rejected)
    assert sorted(messages(response)) == [
        "Left alone: 2 packages, because of the state.",
        "Queued for replay: 2 packages.",
    ]
    assert states() == ["QUEUED", "QUEUED", "STORED", "QUEUED"]
    assert sorted(queue()) == [rejected[0].pk, rejected[3].pk]
    assert LogEntry.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_replay_twice_queues_once(admin_client, queue):
    rejected = [reject()]
    act(admin_client, "replay_selected", rejected), act(admin_client, "replay_selected", rejected)
    assert queue() == [rejected[0].pk]


@pytest.mark.django_db(transaction=True)
def test_replay_of_500_is_quick_and_ends_with_500_killmails(admin_client, queue):
    LogHead.objects.get_or_create(pk=1)
    rejected = [reject(number, raw=package(number), reason="BAD_FIELD") for number in range(1, 501)]
    begun = time.process_time()  # of our work, not of what else the machine has to do
    with CaptureQueriesContext(connection) as queries:
        response = act(admin_client, "replay_selected", rejected)
    assert messages(response) == ["Queued for replay: 500 packages."]
    assert len(queries) < 50  # not one for each
    for rejected_id in queue():
        replay(rejected_id)
    assert time.process_time() - begun < 60
    assert Killmail.objects.count() == 500
    assert set(states()) == {"STORED"}


@pytest.mark.django_db(transaction=True)
def test_all_packages_of_a_filter_are_replayed_not_only_those_of_the_page(admin_client, queue):
    first = [reject(number) for number in range(1, 131)]
    reject(999, reason="BAD_FIELD")
    data = {"action": "replay_selected", "_selected_action": [first[0].pk], "select_across": "1", "index": "0"}
    response = admin_client.post(f"{REJECTED}?reason=NOT_JSON", data, follow=True)
    assert messages(response) == ["Queued for replay: 130 packages."]
    assert len(queue()) == 130
    assert RejectedKillmail.objects.get(sequence=999).state == "OPEN"


@pytest.fixture(params=["refuses", "hangs"])
def broker_down(request, monkeypatch):
    """The address of a broker that is away."""
    limits = {"confirm_publish": True, "connect_timeout": 3, "read_timeout": 3, "write_timeout": 3}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", f"amqp://guest@127.0.0.1:{taken.getsockname()[1]}//")
        monkeypatch.setitem(current_app.conf, "broker_transport_options", limits)
        if request.param == "refuses":
            taken.close()
        yield


@pytest.mark.django_db(transaction=True)
def test_broker_that_is_down_leaves_the_rows_to_the_sweeper(admin_client, broker_down):
    rejected = [reject(number) for number in range(1, 501)]
    begun = time.monotonic()
    response = act(admin_client, "replay_selected", rejected)
    assert time.monotonic() - begun < 60  # and not three seconds for each of them
    assert response.status_code == 200
    told = "The queue did not take 500 of them; the sweeper finds these within a minute."
    assert messages(response) == [f"Marked for replay: 500 packages. {told}"]
    assert set(states()) == {"QUEUED"}


@pytest.mark.django_db
def test_discard_asks_for_a_reason_and_changes_nothing_yet(admin_client):
    rejected = [reject(1), reject(2)]
    for fields in ({}, {"note": " "}, {"note": "x" * 201}, {"note": "a\x00b"}):
        response = act(admin_client, "discard_selected", rejected, **fields)
        assert response.status_code == 200
        assert response.context["title"] == "Discard packages"
        assert set(states()) == {"OPEN"}
    assert LogEntry.objects.count() == 0


@pytest.mark.django_db
def test_discard_keeps_the_reason_and_logs_the_user(admin_client, admin_user):
    rejected = [reject(1), reject(2), reject(3, state="QUEUED")]
    response = act(admin_client, "discard_selected", rejected, note="[broken] for good")
    assert messages(response) == ["Discarded: 2 packages.", "Left alone: 1 package, because of the state."]
    assert states() == ["DISCARDED", "DISCARDED", "QUEUED"]
    assert set(RejectedKillmail.objects.values_list("note", flat=True)) == {"[broken] for good", ""}
    logged = list(LogEntry.objects.values_list("user", "change_message"))
    assert logged == [(admin_user.pk, "Discarded: [broken] for good")] * 2


@pytest.mark.django_db
def test_whoever_may_only_see_repairs_nothing(client):
    rejected = reject()
    log_in(client, "view_rejectedkillmail")
    assert "replay_selected" not in page(client, REJECTED)
    assert "Replay" not in page(client, f"{REJECTED}{rejected.pk}/change/")
    for action in ("replay_selected", "discard_selected"):
        act(client, action, [rejected], note="no")
    assert states() == ["OPEN"]
    assert LogEntry.objects.count() == 0


@pytest.mark.django_db
def test_change_permission_is_enough_to_repair(client):
    rejected = reject()
    log_in(client, "change_rejectedkillmail", "view_rejectedkillmail")
    html = page(client, f"{REJECTED}{rejected.pk}/change/")
    assert ">Replay</button>" in html
    assert ">Discard…</button>" in html
    assert "_save" not in html
    act(client, "discard_selected", [rejected], note="yes")
    assert states() == ["DISCARDED"]
