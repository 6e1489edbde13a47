"""As much of RFC 6455 as a client in a test needs: no extensions, no continued frames."""

from enum import IntEnum

GREETING = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


class Frame(IntEnum):
    TEXT = 1
    CLOSE = 8
    PING = 9
    PONG = 10


def client_frame(payload: bytes, kind: int = Frame.TEXT) -> bytes:
    """A frame to a server, masked with zeros."""
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    else:
        length = bytes([0x80 | 126]) + len(payload).to_bytes(2)
    return bytes([0x80 | kind]) + length + bytes(4) + payload


def frames_of(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames from a server, each with its kind, and the bytes of the one that has begun."""
    frames, at = [], 0
    while len(data) - at >= 2:
        size, begin = data[at + 1], at + 2
        if size >= 126:
            begin += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : begin])
        if len(data) < begin + size:
            break
        frames.append((data[at] & 0x0F, data[begin : begin + size]))
        at = begin + size
    return frames, data[at:]
