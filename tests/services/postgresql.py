"""A real PostgreSQL on a free port, with one empty database; fast, since it need not survive a power cut."""

import os
import pwd
import signal
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from tests.services.service import Service, ServiceError, environment_without

DATABASE = "killboard"


class PostgreSQL(Service):
    name = "postgresql"
    # PostgreSQL's "fast" end: clients are cut off, data is written. SIGTERM would wait for the clients.
    stop_signal = signal.SIGINT

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The address of another database of this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        self.create_database(DATABASE)

    def create_database(self, database: str) -> str:
        """Make an empty database unless it is there, and return its address."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self.url_of(database)

    def _launch(self) -> subprocess.Popen[bytes]:
        programs = _programs()
        data = self.folder / "data"
        if not data.exists():
            self._initialise(programs, data)
        # The system outlives our kill(), so nothing need reach the disk; but synchronous_commit stays on:
        # without it a killed server forgets what it had committed a moment ago.
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "full_page_writes": "off",
            # It sees nothing of a test's open transaction, and writes down that the tables are empty: from then on the
            # planner nests one loop in the other, and a query of 10 ms takes minutes.
            "autovacuum": "off",
        }
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return self._run([programs / "postgres", "-D", data, "-p", str(self.port), *settings], data)

    def _initialise(self, programs: Path, data: Path) -> None:
        user = _unprivileged_user()
        data.mkdir(mode=0o700)
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        process = self._run([programs / "initdb", "-D", data, *options], data)
        code = process.wait()
        self._guard.forget(process.pid)
        if code != 0:
            raise ServiceError(f"initdb failed in {data}. {self._end_of_log()}")

    def _run(self, command: list[str | Path], data: Path) -> subprocess.Popen[bytes]:
        user = _unprivileged_user()
        uid, gid = (user.pw_uid, user.pw_gid) if user else (None, None)
        return self._spawn(command, env=environment_without("PG"), cwd=data, user=uid, group=gid)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url_of("postgres"), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


def _programs() -> Path:
    """The folder of the newest PostgreSQL's programs; Debian keeps them off the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise ServiceError("PostgreSQL was not found in /usr/lib/postgresql: apt-get install postgresql")
    return max(found, key=lambda folder: float(folder.parent.name))


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL has to run as: it refuses root. None: whoever we are."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
