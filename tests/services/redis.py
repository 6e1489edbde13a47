"""A real Redis on a free port, which keeps nothing on disk."""

import shutil
import socket
import subprocess

from tests.services.service import Service, ServiceError


class Redis(Service):
    name = "redis"

    def __init__(self, *options: str) -> None:
        """With more options for redis-server."""
        super().__init__()
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _launch(self) -> subprocess.Popen[bytes]:
        server = shutil.which("redis-server")
        if server is None:
            raise ServiceError("redis-server was not found: apt-get install redis-server")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return self._spawn([server, *options, "--dir", str(self.folder), *self._options])

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
