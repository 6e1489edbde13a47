"""What we do with uvicorn's connections beyond ASGI, as a client sees it; and the same without it."""

import pytest

from realtime import outbox as outbox_module
from realtime.server import abort, direct, forget_handshake
from tests.realtime.running_server import Board, run, running_server

# Bytes: the head of a frame is another one from 126 and from 65,536 on.
SIZES = [1, 125, 126, 127, 65_535, 65_536, 200_000]


@pytest.fixture(params=[True, False], ids=["straight to the transport", "through ASGI"])
def board(request, monkeypatch):
    board = Board()
    if not request.param:
        monkeypatch.setattr(outbox_module, "direct", lambda send: None)
    board.is_direct = request.param
    with running_server(board) as board.port:
        yield board


@pytest.mark.parametrize("letter", ["x", "😀"])
def test_frames_of_every_size_arrive_whole_and_in_order(board, letter):
    texts = [letter * (size // len(letter.encode())) + "x" * (size % len(letter.encode())) for size in SIZES]

    async def scenario():
        async with board.ready() as ws:
            (consumer,) = board.endpoint._consumers.values()
            for text in texts:
                board.loop.call_soon_threadsafe(consumer.outbox.put, text)
            return [await ws.recv() for _ in texts]

    assert run(scenario()) == texts


def test_uvicorns_connection_is_written_to_straight(board):
    """Else ten thousand sockets wait half as long again: uvicorn has other names by now."""

    async def scenario():
        async with board.ready():
            (consumer,) = board.endpoint._consumers.values()
            return consumer.outbox._direct is not None

    assert run(scenario()) is board.is_direct


def test_without_uvicorn_nothing_is_done():
    async def send(message):
        raise AssertionError(message)

    class Other:
        async def send(self, message):
            raise AssertionError(message)

    for one in (send, Other().send, None):
        assert direct(one) is None
        abort(one)
        forget_handshake(one)
