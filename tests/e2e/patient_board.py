"""A board that waits a minute for a peer to take its close frame: who reads on needs it on a machine that stalls."""

from killboard.asgi import application
from realtime import consumer

consumer.CLOSE_LIMIT = 60.0  # seconds

__all__ = ["application"]
