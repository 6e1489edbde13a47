"""CCP's static data as it lies on disk: a zip, or the folder that it unpacks to, of JSON lines. Read line by line."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar

import orjson

from killmails.errors import BadStaticData, Unacceptable
from killmails.fields import Fields

MAX_UNPACKED = 4 * 1024**3  # bytes of all files that are read; today's have about 0.6 GB
MAX_LINE = 4 * 1024**2  # bytes; the longest, of types with their descriptions, have some 50 kB
# What reading a damaged zip raises; RuntimeError where it is encrypted, or packed in a way that Python does not know.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)

T = TypeVar("T")


class Build(NamedTuple):
    """What `_sde.jsonl` says of itself."""

    number: int
    released_at: datetime | None


class Archive:
    """`source` is a path, or the zip as an open file. Files that nobody asks for are not looked at.

    Everything here raises BadStaticData, whose text names file and line.
    """

    def __init__(self, source: Path | BinaryIO, name: str = "") -> None:
        self.name = name or str(source)
        self._folder = source if isinstance(source, Path) and source.is_dir() else None
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._left = MAX_UNPACKED
        if self._folder is None:
            self._open_zip(source)

    def _open_zip(self, source: Path | BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(source)
        except zipfile.BadZipFile as error:
            raise BadStaticData(f"{self.name}: is no zip, or not all of one") from error
        except OSError as error:
            raise BadStaticData(f"{self.name}: {error.strerror or error}") from error
        self._members = {PurePosixPath(info.filename).name: info for info in self._zip.infolist()}

    def build(self) -> Build:
        """Needed: locations are looked for only where a build of CCP's is known to be loaded."""
        for build in self.read("_sde.jsonl", _build):
            return build
        raise BadStaticData(f"{self.name}: _sde.jsonl names no build")

    def read(self, name: str, make: Callable[[Fields], T]) -> Iterator[T]:
        """What `make` makes of each line; lines without anything on them are passed over."""
        with self._open(name) as stream:
            for number, line in enumerate(_lines(stream, name), start=1):
                if not line.strip():
                    continue
                try:
                    made = make(Fields(orjson.loads(line), ""))
                except orjson.JSONDecodeError as error:
                    raise BadStaticData(f"{name}, line {number}: is not JSON ({error})") from error
                except Unacceptable as error:
                    raise BadStaticData(f"{name}, line {number}: {error.detail}") from error
                yield made

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            if not self._has(name):
                raise BadStaticData(f"{self.name}: lacks {name}")
            with self._stream(name) as stream:
                yield stream
        except DAMAGED as error:
            raise BadStaticData(f"{self.name}: {name} cannot be unpacked ({error})") from error

    def _has(self, name: str) -> bool:
        return name in self._members if self._folder is None else (self._folder / name).exists()

    def _stream(self, name: str) -> IO[bytes]:
        if self._folder is not None:
            return (self._folder / name).open("rb")
        assert self._zip is not None
        member = self._members[name]
        # What it declares is all that zipfile unpacks of it.
        self._left -= member.file_size
        if self._left < 0:
            raise BadStaticData(f"{self.name}: unpacks to more than {MAX_UNPACKED} bytes, at {name}")
        return self._zip.open(member)


def _lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise BadStaticData(f"{name}, line {number}: has more than {MAX_LINE} bytes")
        yield line


def _build(line: Fields) -> Build:
    return Build(line.id("buildNumber"), moment(line, "releaseDate"))


def moment(line: Fields, key: str) -> datetime | None:
    """An instant; None for what is none, since nothing depends on it."""
    value: Any = line.value(key) if line.has(key) else None
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
