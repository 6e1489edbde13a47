"""Going on from a position, through a whole board: every event after it once and in order, or a refusal that says why.

P10: 1,000 reconnects of clients that were killed, 1 to 10,000 events behind. P11: 200 subscribe while 200 events a
second are stored. P12: six tokens from which no stream can go on. Missing 0, double 0, silent starts 0.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.crowd import LONG, Crowd, Publisher, ask, head_of, lengthen
from tests.e2e.processes import Board, new_board
from tests.e2e.sockets import first_answer, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services]

BEHIND = 10_000 if LONG else 2_000
RECONNECTS = 1_000 if LONG else 60
AT_ONCE = 10  # subscribers that a killed client holds
JOINING = 200 if LONG else 40
BURST = 200  # events a second
MAX_REPLAY = 20_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board with a log of some length; it grows from test to test."""
    folder = tmp_path_factory.mktemp("resume")
    with new_board(folder, "resume", MAX_REPLAY=str(MAX_REPLAY)) as board:
        Publisher(board, 0, 20).finish(all_of_it=True)
        lengthen(board, BEHIND)
        board.uvicorn()
        yield board


@dataclass
class Chain:
    """What one subscriber has had, over all its lives; each life has written down what came before it was killed."""

    after: int
    journal: Path

    @property
    def had(self) -> list[int]:
        whole_lines = self.journal.read_text().split("\n")[:-1] if self.journal.exists() else []
        return [int(line) for line in whole_lines]

    @property
    def last(self) -> int:
        return max([self.after, *self.had])


def kill_and_come_back(board: Board, folder: Path, reconnects: int, resume: bool = True) -> tuple[list[Chain], int]:
    """Clients are killed at random moments, and come back where they were, or from anywhere. All chains, and where
    the log ended, up to which those that were there at the end have read.
    """
    chance, publisher = random.Random(10), Publisher(board, 50).begun()
    chains: list[Chain] = []
    lives, current = 0, []
    while lives < reconnects:
        epoch, head = head_of(board)
        if not current or chance.random() < 0.5:  # others, from anywhere
            tokens = [head - chance.randint(1, BEHIND) for _ in range(AT_ONCE)]
            room = folder / f"{lives}"
            room.mkdir()
            current = [Chain(after, room / str(number)) for number, after in enumerate(tokens)]
            chains += current
        _one_life(board, current, epoch, resume, chance.uniform(0.0, 0.4))
        lives += AT_ONCE
    last = max(publisher.finish())
    _one_life(board, current, epoch, resume, until=last)
    return chains, last


def _one_life(
    board: Board, chains: list[Chain], epoch: str, resume: bool, seconds: float = 0, until: int | None = None
) -> None:
    """The client runs for so long, or until it has everything up to there; then it is killed."""
    with Crowd() as crowd:
        after, journal = [chain.last for chain in chains], chains[0].journal.parent
        wait = until is not None or not resume
        crowd.open(AT_ONCE, board, after=after, epoch=epoch, resume=resume, journal=journal, wait=wait)
        if until is not None:
            assert crowd.wait_for(until) == 0
        elif not resume:  # else nobody would notice
            wait_until(lambda: crowd.report()["delivered"])
        time.sleep(seconds)


def wrong(chain: Chain) -> tuple[int, int]:
    """How many it misses, and how many came twice or out of order."""
    had, missing, again, last = chain.had, 0, 0, chain.after
    for position in had:
        missing += max(0, position - last - 1)
        again += position <= last
        last = max(last, position)
    return missing, again


def test_p10_clients_that_are_killed_and_come_back_get_every_event_once(running: Board, tmp_path: Path) -> None:
    chains, last = kill_and_come_back(running, tmp_path, RECONNECTS)
    assert [wrong(chain) for chain in chains] == [(0, 0)] * len(chains)
    assert [chain.last for chain in chains[-AT_ONCE:]] == [last] * AT_ONCE
    delivered = sum(len(chain.had) for chain in chains)
    print(f"P10: {RECONNECTS} lives of {len(chains)} subscribers, {delivered} events: none missing, none double")
    assert delivered > RECONNECTS


def test_p10_is_not_blind_who_comes_back_without_a_position_misses_events(running: Board, tmp_path: Path) -> None:
    chains, _ = kill_and_come_back(running, tmp_path, 2 * AT_ONCE, resume=False)
    assert sum(wrong(chain)[0] for chain in chains) > 0


def join_in_a_burst(board: Board, count: int, resume: bool) -> tuple[Crowd, int]:
    """So many subscribe one after the other while events are stored; from near, at the edges of what is kept in
    memory and of pages, and from further back. The last position.
    """
    chance, crowd = random.Random(11), Crowd()
    publishers = [Publisher(board, BURST / 2) for _ in range(2)]
    for publisher in publishers:
        publisher.begun()
    for _ in range(count // AT_ONCE):
        epoch, head = head_of(board)
        if not resume:  # there is always something between asking and subscribing
            wait_until(lambda head=head: int(first_answer(board, None).split()[-1]) > head)
        edges = (0, 1, 99, 100, 101, 255, 256, 257, chance.randint(2, 600), chance.randint(2, 1200))
        after = [head - edge for edge in edges] if resume else [head] * len(edges)
        crowd.open(len(after), board, after=after, epoch=epoch, resume=resume, wait=False, apart=0.01)
    committed = [max(publisher.finish()) for publisher in publishers]
    return crowd, max(committed)


def test_p11_from_catching_up_to_live_there_is_no_seam(running: Board) -> None:
    crowd, last = join_in_a_burst(running, JOINING, resume=True)
    with crowd:
        report = crowd.expect_everything(last)
    print(f"P11: {JOINING} subscribed in a burst, {report['delivered']} events: none missing, none double")


def test_p11_is_not_blind_who_asks_where_the_log_stands_and_then_subscribes_misses_events(running: Board) -> None:
    crowd, last = join_in_a_burst(running, 2 * AT_ONCE, resume=False)
    with crowd:
        assert crowd.wait_for(last) == 0
        assert crowd.report()["missing"] > 0


def test_p11_a_position_that_this_server_has_not_seen_yet_is_waited_for(running: Board) -> None:
    """Another server was quicker: nobody has rung here, and who comes from there must not be told to go back."""
    for _ in range(5):
        lengthen(running, 300)
        epoch, head = head_of(running)
        assert first_answer(running, f"{epoch}:{head}") == f"CHECKPOINT {head}"


def test_p12_a_token_from_which_no_stream_can_go_on_is_refused(running: Board) -> None:
    lengthen(running, max(1, MAX_REPLAY + 1 - head_of(running)[1]))
    epoch, head = _noticed(running)
    oldest = head - MAX_REPLAY
    tokens = {
        f"{epoch}:{oldest - 1}": "STREAM_TOKEN_TOO_OLD",
        f"{epoch}:{head + 1}": "STREAM_TOKEN_AHEAD",
        f"another:{head}": "STREAM_EPOCH_CHANGED",
        "garbage": "STREAM_TOKEN_INVALID",
        f"{epoch}:-1": "STREAM_TOKEN_INVALID",
        f"{epoch}:{2**63}": "STREAM_TOKEN_INVALID",
    }
    assert {token: first_answer(running, token) for token in tokens} == tokens
    # Not blind: from one position later the stream goes on, and without any it begins.
    assert first_answer(running, f"{epoch}:{oldest}").endswith(f" {oldest + 1}")
    assert first_answer(running, None) == f"CHECKPOINT {head}"


def _noticed(board: Board) -> tuple[str, int]:
    """Where the log stands, when the server has seen it too."""
    epoch, head = head_of(board)
    wait_until(lambda: first_answer(board, None) == f"CHECKPOINT {head}")
    return epoch, head


def test_who_is_too_far_behind_pages_to_where_a_subscription_goes_on(running: Board) -> None:
    lengthen(running, max(1, MAX_REPLAY + 50 - head_of(running)[1]))
    epoch, head = _noticed(running)
    begin = head - MAX_REPLAY - 49
    assert first_answer(running, f"{epoch}:{begin}") == "STREAM_TOKEN_TOO_OLD"
    query = "query ($after: String) { killmailEvents(after: $after, first: 100) { nodes { position } position } }"
    page = ask(running, query, after=f"{epoch}:{begin}")["killmailEvents"]
    expected = range(begin + 1, begin + 101)
    assert [node["position"] for node in page["nodes"]] == [f"{epoch}:{position}" for position in expected]
    assert first_answer(running, page["position"]).endswith(f" {begin + 101}")
