"""Dead letters: carried to the table once each, never executed, and queued again or discarded in the admin."""

import json
import pickle
from datetime import UTC, datetime

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from kombu import Connection, Queue

from killmails.ingest.dead_letters import KEPT, collect
from killmails.models import DeadLetter
from tests.killmails.admin_driver import ADMIN, assert_no_page, listed, messages, page

pytestmark = pytest.mark.django_db

LETTERS = f"{ADMIN}/deadletter/"
OURS = "killmails.tasks.replay_rejected"
DIED = datetime(2026, 11, 25, 4, 42)  # noqa: DTZ001 - as times of AMQP come
DEATH = {"count": 1, "reason": "delivery_limit", "queue": "killboard.bulk", "time": DIED}


@pytest.fixture
def dead():
    """The queue of dead letters, in memory: `send` puts one in."""

    class Dead:
        def __init__(self, channel):
            self.queue = Queue("dead")(channel)
            self.queue.declare()

        def send(self, body, content_type="application/json", **headers):
            self.queue.channel.basic_publish(
                self.queue.channel.prepare_message(body, 0, content_type, "utf-8", headers), "", "dead"
            )

        def collect(self):
            return collect(self.queue, frozenset([OURS]), 6)

    with Connection("memory://") as connection:
        dead = Dead(connection.default_channel)
        yield dead
        dead.queue.purge()


def task(*arguments, **named):
    return json.dumps([arguments, named, {"callbacks": None}])


def test_a_task_of_ours_is_kept_with_its_ids_and_what_rabbitmq_said(dead):
    dead.send(task(7), task=OURS, id="a", **{"x-death": [DEATH]})
    assert dead.collect() == 1
    letter = DeadLetter.objects.get()
    assert (letter.task, letter.arguments, letter.reason, letter.queue) == (OURS, [7], "delivery_limit", DEATH["queue"])
    assert (letter.deliveries, letter.died_at, bytes(letter.raw)) == (6, DIED.replace(tzinfo=UTC), task(7).encode())
    assert (letter.state, dead.collect()) == ("OPEN", 0)


def test_what_nobody_took_in_time_is_no_dead_letter(dead, caplog):
    """Beat's own messages, while no worker does tasks."""
    dead.send(task(), task=OURS, id="a", **{"x-death": [DEATH | {"reason": "expired"}]})
    dead.send(task(7), task=OURS, id="b", **{"x-death": [DEATH, DEATH | {"reason": "expired"}]})
    assert dead.collect() == 1
    assert DeadLetter.objects.get().arguments == [7]
    assert dead.queue.get() is None


def test_a_letter_that_comes_twice_is_kept_once_and_another_one_of_the_same_task_too(dead):
    for id_ in ("a", "a", "b"):
        dead.send(task(7), task=OURS, id=id_, **{"x-death": [DEATH]})
    assert dead.collect() == 2
    assert DeadLetter.objects.count() == 2


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("executed",))


@pytest.mark.parametrize(
    ("body", "content_type", "headers"),
    [
        (pickle.dumps(Bomb()).decode("latin-1"), "application/x-python-serialize", {"task": OURS, "id": "a"}),
        (task(7), "application/x-python-serialize", {"task": OURS, "id": "a"}),
        (task(7), "application/json", {"task": "os.system", "id": "a"}),
        (task(7), "application/json", {}),
        (task(7), "application/json", {"task": [OURS], "x-death": "x"}),
        (task(7), "application/json", {"task": {"a": 1}, "x-death": [{"count": "x", "reason": 5, "time": "x"}]}),
        (task("7"), "application/json", {"task": OURS}),
        (task(True), "application/json", {"task": OURS}),
        (task(rejected_id=7), "application/json", {"task": OURS}),
        ("[[7]", "application/json", {"task": OURS}),
        ("[" * 100_000, "application/json", {"task": OURS}),
        ("5", "application/json", {"task": OURS}),
        ("\x00", "text/plain", {"task": OURS, "x-death": [{"reason": "\x00\ud800", "queue": "x" * 999}]}),
    ],
    ids=range(13),
)
def test_what_is_no_task_of_ours_is_kept_and_never_believed(dead, body, content_type, headers):
    dead.send(body, content_type, **headers)
    assert dead.collect() == 1
    letter = DeadLetter.objects.get()
    assert (letter.task, letter.arguments) == ("", [])
    assert bytes(letter.raw) == body.encode()[:KEPT]


@pytest.fixture
def queued():
    """Takes the tasks out of the queue; empty before and after."""

    def take():
        with current_app.connection_for_read() as broker:
            bound = current_app.amqp.queues["bulk"](broker.default_channel)
            bound.declare()
            found = []
            while message := bound.get(no_ack=True):
                found.append((message.headers["task"], message.decode()[0]))
            return found

    take()
    yield take
    take()


def letter(number, **fields):
    return DeadLetter.objects.create(
        key=str(number), **{"task": OURS, "arguments": [number], "reason": "delivery_limit", "raw": b"<b>"} | fields
    )


def act(client, action, letters, **fields):
    data = {"action": action, "_selected_action": [row.pk for row in letters]} | fields
    return client.post(LETTERS, data, follow=True)


@pytest.mark.django_db(transaction=True)
def test_a_task_is_queued_again_and_that_is_logged_with_the_user(admin_client, admin_user, queued):
    ours, foreign = letter(7), letter(8, task="", arguments=[])
    assert listed(admin_client, LETTERS) == [foreign.pk, ours.pk]
    response = act(admin_client, "replay_selected", [ours, foreign])
    assert messages(response) == [
        "Queued for replay: 1 dead letter.",
        "Left alone: 1 dead letter, because of the state.",
    ]
    assert queued() == [(OURS, [7])]
    assert [DeadLetter.objects.get(pk=row.pk).state for row in (ours, foreign)] == ["QUEUED", "OPEN"]
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.change_message) == (admin_user, str(ours.pk), "Queued for replay.")


@pytest.mark.django_db(transaction=True)
def test_a_letter_that_the_broker_does_not_take_is_open_still(admin_client, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "amqp://guest@127.0.0.1:1//")
    row = letter(7)
    response = act(admin_client, "replay_selected", [row])
    assert messages(response) == ["The queue did not take 1 of 1 dead letter; they are open still."]
    assert DeadLetter.objects.get().state == "OPEN"


def test_a_letter_is_discarded_with_a_reason_and_that_is_logged(admin_client, admin_user):
    row = letter(7)
    assert "Dead letter" in act(admin_client, "discard_selected", [row]).content.decode()
    assert DeadLetter.objects.get().state == "OPEN"
    assert messages(act(admin_client, "discard_selected", [row], note="known")) == ["Discarded: 1 dead letter."]
    assert (DeadLetter.objects.get().state, DeadLetter.objects.get().note) == ("DISCARDED", "known")
    assert LogEntry.objects.get().change_message == "Discarded: known"


def test_a_page_shows_the_bytes_escaped_and_gives_them_away_as_no_page(admin_client):
    ours, foreign = letter(7), letter(8, task="")
    html = page(admin_client, f"{LETTERS}{ours.pk}/change/")
    assert ">&lt;b&gt;</pre>" in html
    assert "Replay</button>" in html
    assert "Replay</button>" not in page(admin_client, f"{LETTERS}{foreign.pk}/change/")
    response = admin_client.get(f"{LETTERS}{ours.pk}/raw/")
    assert response.content == b"<b>"
    assert_no_page(response, f"dead-letter-{ours.pk}.bin")
