"""nginx with the file that we ship, before two servers: websockets pass, and while one is down the other answers."""

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from websockets.sync.client import ClientConnection, connect

from tests.e2e.crowd import Publisher
from tests.e2e.nginx import write_configuration
from tests.e2e.processes import Board, new_board
from tests.e2e.sockets import wait_until
from tests.services.service import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.services]

ASKED = 60  # queries while a server is restarted
QUERY = b'{"query": "{ killmails(first: 1) { nodes { id } } }"}'
EVENTS = "subscription($after: String) { killmailEvents(after: $after) { position kind } }"


class Proxy:
    """nginx, and the two boards behind it, on one database."""

    def __init__(self, boards: list[Board], folder: Path) -> None:
        folder.mkdir()
        self.boards = boards
        self.servers = [board.uvicorn() for board in boards]
        self.port = free_port()
        configuration = write_configuration(folder, self.port, [board.port for board in boards])
        self.certificate = str(folder / "certificate.pem")
        boards[0].start("nginx", "/usr/sbin/nginx", "-c", configuration)
        wait_until(self.answers)

    def ask(self, path: str = "/graphql", body: bytes | None = QUERY) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        url, method = f"https://localhost:{self.port}{path}", "POST" if body else "GET"
        return requests.request(method, url, data=body, headers=headers, verify=self.certificate, timeout=60)

    def answers(self) -> bool:
        try:
            return self.ask().status_code == 200
        except requests.ConnectionError:
            return False

    def subscribed(self, after: str | None = None) -> ClientConnection:
        context = ssl.create_default_context(cafile=self.certificate)
        ws = connect(f"wss://localhost:{self.port}/graphql", ssl=context, subprotocols=["graphql-transport-ws"])
        ws.send('{"type":"connection_init"}')
        ws.recv(60)
        payload = {"query": EVENTS, "variables": {"after": after}}
        ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        return ws


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with new_board(tmp_path, "behind_nginx", TRUSTED_PROXIES="1") as first, Board(first.folder, first.env) as second:
        yield Proxy([first, second], tmp_path / "nginx")


def heard(ws: ClientConnection) -> dict[str, str]:
    return json.loads(ws.recv(60))["payload"]["data"]["killmailEvents"]


def test_behind_nginx_websockets_pass_and_a_restart_costs_no_query(proxy: Proxy) -> None:
    with proxy.subscribed() as ws:
        assert heard(ws)["kind"] == "CHECKPOINT"
        Publisher(proxy.boards[0], 0, 1).finish(all_of_it=True)
        event = heard(ws)
    assert event["kind"] == "ADDED"
    statuses = set()
    for number, board in enumerate(proxy.boards):
        proxy.servers[number].stop()
        statuses |= {proxy.ask().status_code for _ in range(ASKED)}
        proxy.servers[number] = board.uvicorn()
        time.sleep(2.5)  # nginx looks again after fail_timeout
    assert statuses == {200}
    with proxy.subscribed(event["position"]) as ws:
        again = heard(ws)
    assert (again["kind"], again["position"]) == ("CHECKPOINT", event["position"])
    assert proxy.ask("/health/live", None).status_code == 200
    assert proxy.ask(body=b"x" * 70_000).status_code == 413
    for server in proxy.servers:
        server.kill()
    # Not blind: with no server left, it is nginx that answers.
    assert proxy.ask().status_code == 502
