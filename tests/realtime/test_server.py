"""What we do with uvicorn's connections beyond ASGI, as a client sees it; and the same without it."""

from types import SimpleNamespace

import pytest
from websockets.frames import Frame, Opcode

from realtime import consumer as consumer_module
from realtime import outbox as outbox_module
from realtime import server as server_module
from realtime.server import abort, direct, watch
from tests.realtime.running_server import Board, close_of, hear, run, running_server, say

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
        watch(one)


# Frames that never reach the application


def _write(ws, frames):
    ws.transport.write(b"".join(frame.serialize(mask=True) for frame in frames))


def _close_after(board, frames):
    """Code and reason. Nothing may follow the last frame: its bytes, unread, would reset the connection."""

    async def scenario():
        async with board.ready() as ws:
            _write(ws, frames)
            return await close_of(ws)

    return run(scenario())


def _answer_after(board, frames):
    async def scenario():
        async with board.ready() as ws:
            _write(ws, frames)
            await say(ws, '{"type":"ping","payload":{"after":"them"}}')
            while "payload" not in (frame := await hear(ws)):
                pass
            return frame["payload"]["after"]

    return run(scenario())


def _pings(count):
    return [Frame(Opcode.PING, b"") for _ in range(count)]


def _message(pieces):
    """A ping of the protocol in so many pieces, most of them empty."""
    first = Frame(Opcode.TEXT, b'{"type":"pi', fin=False)
    return [first, *(Frame(Opcode.CONT, b"", fin=False) for _ in range(pieces - 2)), Frame(Opcode.CONT, b'ng"}')]


def test_hundred_pings_of_the_websocket_in_ten_seconds_are_answered_and_one_more_is_closed_with_4291(
    board, monkeypatch
):
    monkeypatch.setattr(server_module, "time", SimpleNamespace(monotonic=lambda: 5.0))
    assert _answer_after(board, _pings(100)) == "them"
    assert _close_after(board, _pings(101)) == (4291, "too many messages")


def test_message_of_a_thousand_pieces_is_read_and_one_of_more_is_closed_with_1009(board):
    assert _answer_after(board, _message(1000)) == "them"
    assert _close_after(board, _message(1001)) == (1009, "The message exceeds 1000 pieces")


def test_socket_that_nobody_watches_takes_pings_and_pieces_without_end(board, monkeypatch):
    """Known to be wrong: uvicorn's own way."""
    monkeypatch.setattr(consumer_module, "watch", lambda send: None)
    assert _answer_after(board, [*_pings(1000), *_message(3000)]) == "them"


def test_flood_of_pings_is_taken_in_small_parts(board):
    """Others have their turn between two parts."""

    async def scenario():
        async with board.ready():
            (consumer,) = board.endpoint._consumers.values()
            return consumer._send.__self__.transport.max_size

    assert run(scenario()) == 4096
