"""Two clients that we did not write: Python's gql, and the npm package graphql-ws."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

NODE_MODULES = Path(__file__).parent / "node_modules"
QUERY = """subscription {
  killmailEvents { position kind killmail {
    id hash time solarSystem { id } warId moonId attackerCount totalValue points isNpc isSolo isAwox labels locationId
    position { x y z }
    victim {
      character { id } corporation { id } alliance { id } faction { id } shipType { id } damageTaken
    }
    finalBlow { character { id } shipType { id } }
    attackers {
      character { id } corporation { id } alliance { id } faction { id } shipType { id } weaponType { id }
      damageDone finalBlow securityStatus
    }
    items { ...item items { ...item items { ...item items { flag } } } }
  } }
}
fragment item on Item { itemType { id } flag quantityDropped quantityDestroyed singleton }"""


def node_is_here() -> bool:
    return bool(shutil.which("node")) and NODE_MODULES.is_dir()


class GqlSubscriber:
    """Collects events in a thread of its own, from `started` on, until it has seen `count` killmails added."""

    def __init__(self, url: str, count: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._count = count
        self.started = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=[url, count], daemon=True)
        self._thread.start()
        assert self.started.wait(60), "the subscription did not begin"

    def _run(self, url: str, count: int) -> None:
        try:
            asyncio.run(self._collect(url, count))
        except Exception as error:  # noqa: BLE001  (told by finish())
            self._error = error

    async def _collect(self, url: str, count: int) -> None:
        # A killmail with thousands of attackers exceeds the 1 MiB that this client takes by default.
        no_limit = {"max_size": None}
        transport = WebsocketsTransport(url=url, subprotocols=["graphql-transport-ws"], connect_args=no_limit)
        async with Client(transport=transport) as session:
            async for result in session.subscribe(gql(QUERY)):
                self.events.append(result["killmailEvents"])
                self.started.set()
                if sum(event["kind"] == "ADDED" for event in self.events) >= count:
                    return

    def finish(self, seconds: float) -> list[dict[str, Any]]:
        """The events, the checkpoint first."""
        self._thread.join(seconds)
        added = sum(event["kind"] == "ADDED" for event in self.events)
        assert added >= self._count, f"only {added} of {self._count} killmails came; {self._error!r}"
        return self.events


class NodeSubscriber:
    """The npm package graphql-ws, in Node."""

    def __init__(self, url: str, count: int) -> None:
        script = Path(__file__).with_name("subscribe.mjs")
        self._process = subprocess.Popen(
            ["node", str(script), url, str(count)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"QUERY": QUERY},
        )
        self._first = self._process.stdout.readline()
        assert self._first, "the subscription did not begin"

    def finish(self, seconds: float) -> list[dict[str, Any]]:
        rest, _ = self._process.communicate(timeout=seconds)
        lines = [self._first, *rest.splitlines()]
        return [json.loads(line)["data"]["killmailEvents"] for line in lines if line.strip()]
