"""A real RabbitMQ on free ports, with a port mapper (epmd) of its own."""

import shutil
import socket
import subprocess
from pathlib import Path

from tests.services.service import Service, ServiceError, environment_without, free_port

# The script in /usr/sbin is a wrapper: it changes user and folder and drops the environment.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ(Service):
    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self._distribution_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self._stop_epmd()

    def _launch(self) -> subprocess.Popen[bytes]:
        if not SERVER.exists():
            raise ServiceError(f"{SERVER} was not found: apt-get install rabbitmq-server")
        (self.folder / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        environment = self._environment()
        if self._epmd is None:
            self._start_epmd(environment)
        return self._spawn([SERVER], env=environment)

    def _start_epmd(self, environment: dict[str, str]) -> None:
        """Start the port mapper ourselves: RabbitMQ would start a daemon that stays when RabbitMQ ends."""
        epmd = shutil.which("epmd")
        if epmd is None:
            raise ServiceError("epmd was not found: apt-get install rabbitmq-server")
        command = [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
        self._epmd = self._spawn(command, env=environment)

    def _stop_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._guard.forget(self._epmd.pid)
            self._epmd = None

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return environment_without("RABBITMQ_", "ERL_", "NOTIFY_SOCKET") | {
            "HOME": folder,
            # Makes the script become the server, instead of a parent that waits for it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": "killboard@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        # An open port is not enough. A server that is up answers with a method frame (type 1).
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
