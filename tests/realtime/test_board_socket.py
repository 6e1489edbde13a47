"""The socket on the board's own log and schema: what is stored reaches it."""

import asyncio
import contextlib

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection

from killmails.ingest.store import store_killmail
from killmails.models import LogHead
from killmails.records import parse_package
from realtime.consumer import GraphQLConsumer
from realtime.endpoint import Endpoint
from realtime.hub import Hub
from realtime.limits import Limits
from tests.builders import NOW, raw_package
from tests.realtime.running_server import ACK, INIT, LIMIT, PROTOCOL, run


@pytest.fixture
def log_head(transactional_db):
    """The head of the log, which other tests' cleaning up may have taken away."""
    LogHead.objects.get_or_create(pk=1)
    yield
    connection.close()


def _disconnect():
    connection.close()


@contextlib.asynccontextmanager
async def _communicator():
    """A socket of the application that the server runs, with a hub that belongs to this loop."""
    from killboard import asgi  # it asks the database on import

    hub = Hub(asgi.KillmailLog(), asgi.engine)
    application = GraphQLConsumer.as_asgi(endpoint=Endpoint(asgi.engine, hub, Limits()))
    socket_ = WebsocketCommunicator(application, "/graphql", None, [PROTOCOL])
    try:
        assert await socket_.connect(LIMIT) == (True, PROTOCOL)
        yield socket_
        await socket_.disconnect(timeout=LIMIT)
    finally:
        for task in hub._tasks:
            task.cancel()
        await asyncio.gather(*hub._tasks, return_exceptions=True)
        # A bound method would be this thread's connection.
        await hub._in_thread(_disconnect)
        await sync_to_async(_disconnect)()


def _store(sequence):
    try:
        store_killmail(parse_package(raw_package(sequence), sequence, NOW))
    finally:
        connection.close()


def test_killmail_that_is_stored_reaches_the_sockets_of_the_board(log_head):
    async def scenario():
        async with _communicator() as ws:
            await ws.send_json_to(INIT)
            assert await ws.receive_json_from(LIMIT) == ACK
            query = "subscription { killmailEvents { position kind killmail { id victim { shipType { id } } } } }"
            await ws.send_json_to({"type": "subscribe", "id": "k", "payload": {"query": query}})
            checkpoint = await ws.receive_json_from(LIMIT)
            await asyncio.to_thread(_store, 1)
            return checkpoint, await ws.receive_json_from(LIMIT)

    checkpoint, added = run(scenario())
    head = LogHead.objects.get()
    assert checkpoint["payload"]["data"]["killmailEvents"] == {
        "position": f"{head.epoch}:{head.position - 1}", "kind": "CHECKPOINT", "killmail": None,
    }  # fmt: skip
    assert added["payload"]["data"]["killmailEvents"] == {
        "position": f"{head.epoch}:{head.position}",
        "kind": "ADDED",
        "killmail": {"id": "1001", "victim": {"shipType": {"id": "587"}}},
    }
