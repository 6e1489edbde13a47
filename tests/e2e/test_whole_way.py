"""The whole way of one killmail, with real processes: feed, two workers, database, Redis, server, two clients."""

import time

import psycopg
import pytest

from killmails.recording.server import RecordingServer, load_recording
from tests.e2e.crowd import LONG
from tests.e2e.faulty_work import Work
from tests.e2e.processes import Board
from tests.e2e.subscribers import GqlSubscriber, NodeSubscriber, node_is_here
from tests.services.guard import process_tree

TAKEN_OVER = 30.0 if LONG else 90.0  # seconds; a machine that stalls takes some of them

pytestmark = [pytest.mark.e2e, pytest.mark.services]


def rows(board: Board, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(board.env["DATABASE_URL"]) as connection:
        return connection.execute(query).fetchall()


def subscribers(board: Board, count: int) -> list[GqlSubscriber | NodeSubscriber]:
    clients: list[GqlSubscriber | NodeSubscriber] = [GqlSubscriber(board.websocket_url, count)]
    if node_is_here():
        clients.append(NodeSubscriber(board.websocket_url, count))
    else:
        print("Node or its packages are not here: the npm client graphql-ws is left out.")
    return clients


def test_server_knows_the_places_of_what_was_stored_before_it_started(services_board: Board) -> None:
    """Without them filters by place would match nothing, and nobody would be told."""
    with RecordingServer(load_recording(), rate=0) as feed:
        feed.publish(load_recording()[0])
        services_board.env["R2Z2_URL"] = feed.url
        services_board.worker("only", "-Q", "feed,publish,esi,bulk", "-c", "1").wait_for("Sequence 1: killmail")
        assert rows(services_board, "SELECT region_id FROM killmails_killmail") == [(None,)]
        services_board.uvicorn()
        ((region, band),) = rows(services_board, "SELECT region_id, security_band FROM killmails_killmail")
        assert region > 10_000_000
        assert band


def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(services_board: Board) -> None:
    killmails = load_recording()
    count = len(killmails)
    with RecordingServer(killmails, rate=0) as feed:
        feed.publish(killmails[0])
        services_board.env["R2Z2_URL"] = feed.url
        services_board.uvicorn()
        clients = subscribers(services_board, count)
        services_board.env["WORKER_ID"] = "1"
        first = services_board.worker("first", "-Q", "feed,publish,esi,bulk", "-c", "1")
        first.wait_for("Sequence 1: killmail")
        services_board.env["WORKER_ID"] = "2"
        second = services_board.worker("second", "-Q", "feed,publish,esi,bulk", "-c", "1")
        second.wait_for("Standing by: worker 1 at ")
        for killmail in killmails[1:]:
            feed.publish(killmail)
        first.wait_for("Sequence 20: killmail")
        first.kill()
        killed = time.monotonic()
        second.wait_for(": killmail ")
        ((holder, fence),) = rows(services_board, "SELECT lease_holder, fence FROM killmails_feedcursor")
        took_over = time.monotonic() - killed
        collected = [client.finish(120) for client in clients]
        assert feed.violations == 0
    assert took_over < TAKEN_OVER
    assert (holder.startswith("worker 2 at "), fence) == (True, 2)
    stored = [id_ for (id_,) in rows(services_board, "SELECT id FROM killmails_killmail ORDER BY id")]
    assert stored == sorted(killmail["killmail_id"] for killmail in killmails)
    events = rows(services_board, "SELECT position, kind FROM killmails_killmailevent ORDER BY position")
    assert events == [(position, "ADDED") for position in range(1, count + 1)]
    for received in collected:
        assert received[0]["kind"] == "CHECKPOINT"
        assert [int(event["position"].split(":")[1]) for event in received] == list(range(count + 1))
        assert [int(event["killmail"]["id"]) for event in received[1:]] == [
            killmail["killmail_id"] for killmail in killmails
        ]
    if len(collected) == 2:
        assert collected[0] == collected[1]


@pytest.mark.parametrize("server", ["uvicorn", "runserver"])
def test_a_killmail_reaches_a_subscriber_of_either_server(services_board: Board, server: str) -> None:
    killmails = load_recording()[:1]
    services_board.env["DEBUG"] = "true"
    with RecordingServer(killmails, rate=0) as feed:
        services_board.env["R2Z2_URL"] = feed.url
        getattr(services_board, server)()
        client = GqlSubscriber(services_board.websocket_url, 1)
        feed.publish(killmails[0])
        services_board.worker("worker", "-Q", "feed", "-P", "threads")
        assert client.finish(120)[1]["killmail"]["id"] == str(killmails[0]["killmail_id"])


def test_a_stopped_worker_leaves_the_feed_to_the_next_at_once(services_board: Board) -> None:
    killmails = load_recording()[:2]
    with RecordingServer(killmails, rate=0) as feed:
        services_board.env["R2Z2_URL"] = feed.url
        feed.publish(killmails[0])
        first = services_board.worker("first", "-Q", "feed", "-c", "1")
        first.wait_for("Sequence 1: killmail")
        second = services_board.worker("second", "-Q", "feed", "-c", "1")
        second.wait_for("ready.")
        assert first.stop() == 0
        # Free for the next, who need not wait until it would have run out.
        assert rows(services_board, "SELECT fence FROM killmails_feedcursor WHERE lease_expires_at > now()") != [(1,)]
        feed.publish(killmails[1])
        second.wait_for("Sequence 2: killmail")
        assert feed.violations == 0


def test_a_worker_that_stands_by_for_the_feed_is_a_full_partner_for_tasks(services_board: Board) -> None:
    work = Work(services_board)
    work.waiting()  # of earlier tests
    with RecordingServer(load_recording()[:1], rate=0) as feed:
        services_board.env["R2Z2_URL"] = feed.url
        pools = []
        for number, says in (("1", "follows the feed now"), ("2", "Standing by: worker 1 at ")):
            services_board.env["WORKER_ID"] = number
            worker = work.worker(f"partner{number}", "-Q", "feed,publish,esi,bulk", "-c", "1")
            worker.wait_for(says), worker.wait_for("ready.")
            pools.append(set(process_tree(worker.popen.pid)))
        sent = [work.send("held_work") for _ in range(2)]
        for number in sent:
            work.wait_for("begun", number)  # both at once, of workers that do one at a time
        work.release()
        for number in sent:
            work.wait_for("done", number)
        assert [work.times(number) for number in sent] == [(1, 1)] * 2
        done = {pid for number in sent for pid in work.notes("done", number)}
    assert [len(pool & done) for pool in pools] == [1, 1]
    ((holder,),) = rows(services_board, "SELECT lease_holder FROM killmails_feedcursor")
    assert holder.startswith("worker 1 at ")
