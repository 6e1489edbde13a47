"""A canary: a message on the doorbell's own channel that wakes nobody, and that every server answers.

For who asks whether rings arrive; no socket and no reader of the log ever sees it.
"""

import asyncio
import time
from dataclasses import dataclass, field

from channels.layers import get_channel_layer

from realtime.doorbell import GROUP, Message, own_id

AGAIN = 0.4  # seconds; the first may have overtaken our own subscription
LATER = 1.0  # seconds in which another server may still answer, after the first has


@dataclass
class Flight:
    """`heard`: seconds until we heard the canary ourselves; None where it never came. `answers`: by who answered."""

    heard: float | None = None
    answers: dict[str, float] = field(default_factory=dict)  # process (host:pid:token): seconds there and back


async def send_canary(within: float) -> Flight:
    """Waits for answers; `within` seconds at most, and less once they come. Raises what the layer raises."""
    flight = Flight()
    layer = get_channel_layer()
    try:
        async with asyncio.timeout(within) as limit:
            reply = await layer.new_channel("doorbell.reply.")
            await layer.group_add(GROUP, reply)
            sending = asyncio.create_task(_send_again_and_again(reply, flight))
            try:
                while True:
                    _take(flight, reply, await layer.receive(reply))
                    if flight.answers:
                        soon = asyncio.get_running_loop().time() + LATER
                        limit.reschedule(min(soon, limit.when() or soon))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except TimeoutError:
        return flight


async def ring_for_a_test() -> None:
    """Once, for who listens by hand: the hubs know of more than position 0. Raises what the layer raises."""
    await get_channel_layer().group_send(GROUP, {"type": "doorbell.ring", "head": 0, "from": own_id(), "test": True})


async def _send_again_and_again(reply: str, flight: Flight) -> None:
    """Until we have heard it; and once more, since the first one's time is mostly that of a connection being made."""
    last = False
    while not last:
        last = flight.heard is not None
        message = {"type": "doorbell.canary", "reply": reply, "sent": time.monotonic()}
        await get_channel_layer().group_send(GROUP, message)
        await asyncio.sleep(AGAIN)


def _take(flight: Flight, reply: str, message: Message) -> None:
    took = time.monotonic() - message.get("sent", 0.0)
    if message.get("type") == "doorbell.answer":
        flight.answers[message["from"]] = min(took, flight.answers.get(message["from"], took))
    elif message.get("reply") == reply:
        flight.heard = took if flight.heard is None else min(took, flight.heard)
