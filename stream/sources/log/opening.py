"""Files, folders and archives: which files a log has, and their bytes without compression."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from stream.sources.log.options import LogError

__all__ = ["LogFile", "OnBytes", "log_files"]

OnBytes = Callable[[int], None]
"""Gets the bytes of the file on disk that have been read so far."""

_CHUNK_BYTES = 1 << 20
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_DATA_SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".tab", ".psv", ".log"), "text"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_NO_LOG = {
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"\x1f\x9d": "packed with compress: unpack it with uncompress first",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as CSV",
    b"ORC": "an ORC file: save it as parquet",
    b"ARROW1": "an Arrow file: save it as parquet",
    b"Obj\x01": "an Avro file: save it as parquet",
    b"\x93NUMPY": "a numpy array: save it as CSV with a header",
    b"\x89HDF": "an HDF5 file: save it as CSV or parquet",
}


@dataclass(frozen=True)
class LogFile:
    """One file with rows, perhaps inside an archive.

    `constants` are columns whose one value is in the names of the file's folders: `day=2020-01-31/part-0.parquet`.
    """

    path: Path
    member: str = ""
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    def chunks(self, on_bytes: OnBytes = lambda count: None) -> Generator[bytes]:
        """The unpacked bytes of the file. Raises OSError, and `LogError` for a file that is damaged or cut short."""
        try:
            with ExitStack() as stack:
                raw = stack.enter_context(self.path.open("rb"))
                stream = _unpacked(raw, stack)
                if self.member:
                    stream = _unpacked(_member(stream, self.member, stack), stack)
                while chunk := stream.read(_CHUNK_BYTES):
                    on_bytes(raw.tell())
                    yield chunk
        except (EOFError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise LogError(f"{self.name} is damaged or cut short: {error}") from error
        except OSError as error:  # pyarrow raises one without a number for a damaged file
            if error.errno is not None:
                raise
            raise LogError(f"{self.name} is damaged or cut short: {error}") from error

    def begins_with(self, count: int) -> bytes:
        """The first `count` bytes, or fewer."""
        found = b""
        with closing(self.chunks()) as chunks:
            for chunk in chunks:
                found += chunk
                if len(found) >= count:
                    break
        return found[:count]

    def on_disk(self, folder: Path) -> Path:
        """A path with the unpacked bytes, for a format that needs random access."""
        with self.path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return self.path
        copy = folder / PurePosixPath(self.member or self.path.name).name
        with copy.open("wb") as file:
            for chunk in self.chunks():
                file.write(chunk)
        return copy


def log_files(path: Path, member: str | None) -> list[LogFile]:
    """The files of a log in the order of their names; `member` chooses among those of a folder or an archive.

    Raises `LogError`.
    """
    if path.is_dir():
        return _files_of_folder(path, member)
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    with path.open("rb") as raw, ExitStack() as stack:
        begin = raw.read(16)
        raw.seek(0)
        for magic, what in _NO_LOG.items():
            if begin.startswith(magic):
                raise LogError(f"{path} is {what}")
        try:
            names = _names_in_archive(_unpacked(raw, stack))
        except (EOFError, OSError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise LogError(f"{path} is damaged or cut short: {error}") from error
    if names is None:
        if member is not None:
            raise LogError(f"{path} is one file, not an archive or a folder: leave out --member")
        return [LogFile(path)]
    if "[Content_Types].xml" in names:
        raise LogError(f"{path} is a spreadsheet: save it as CSV")
    return [LogFile(path, _chosen(path, names, member))]


def _files_of_folder(folder: Path, member: str | None) -> list[LogFile]:
    found: list[LogFile] = []
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or any(part.startswith((".", "_")) for part in inside.parts):
            continue
        if member is not None and not (fnmatch(str(inside), member) or fnmatch(file.name, member)):
            continue
        if member is None and _data_kind(file.name) is None:
            continue
        pairs = [part.partition("=") for part in inside.parts[:-1]]
        found.append(LogFile(file, constants={name: value for name, equals, value in pairs if equals}))
    if not found:
        wanted = f"called {member}" if member else "with a name such as .csv, .jsonl or .parquet"
        raise LogError(f"{folder} holds no file {wanted}")
    kinds = {_data_kind(file.path.name) for file in found}
    if len(kinds) > 1:
        raise LogError(f"{folder} holds files of several kinds: {_listed(folder, found)}; choose with --member '*.csv'")
    return found


def _listed(folder: Path, files: list[LogFile]) -> str:
    return _some([str(file.path.relative_to(folder)) for file in files])


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _data_kind(name: str) -> str | None:
    path = PurePosixPath(name.lower())
    if path.suffix in _PACKED_SUFFIXES:
        path = path.with_suffix("")
    return _DATA_SUFFIXES.get(path.suffix)


def _chosen(path: Path, names: list[str], member: str | None) -> str:
    if member is not None:
        matching = [name for name in names if fnmatch(name, member) or PurePosixPath(name).match(member)]
    else:
        matching = [name for name in names if _data_kind(name) and PurePosixPath(name).stem.lower() != "readme"]
        matching = matching or (names if len(names) == 1 else [])
    if len(matching) == 1:
        return matching[0]
    if matching or not member:
        example = PurePosixPath((matching or names or ["ratings.csv"])[0]).name
        raise LogError(f"{path} holds {_some(matching or names) or 'no file'}: choose one, --member {example}")
    raise LogError(f"{path} holds no file {member}; there are {_some(names)}")


def _unpacked(file: Any, stack: ExitStack) -> IO[bytes]:
    """`file` without any layers of compression, as a stream with `peek`."""
    stream = _buffered(file)
    while packed := next((name for magic, name in _PACKED.items() if stream.peek(6).startswith(magic)), None):
        if packed == "xz":
            inner: Any = stack.enter_context(lzma.open(stream))  # noqa: SIM115
        elif packed == "bz2":
            inner = stack.enter_context(bz2.BZ2File(stream))
        else:
            inner = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(stream, "r"), packed))
        stream = _buffered(inner)
    return stream


def _buffered(file: Any) -> io.BufferedReader:
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, _CHUNK_BYTES)


def _names_in_archive(stream: Any) -> list[str] | None:
    """Names of the files that may be data; None if the stream is not an archive."""
    head = stream.peek(512)[:512]
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(stream) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    elif head[257:262] == b"ustar":
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            names = [entry.name for entry in tar if entry.isfile()]
    else:
        return None
    return [name for name in names if not any(part[0] in "._" for part in PurePosixPath(name).parts if part != ".")]


def _member(stream: Any, name: str, stack: ExitStack) -> IO[bytes]:
    if stream.peek(4).startswith(b"PK"):
        archive = stack.enter_context(zipfile.ZipFile(stream))
        if any(entry.filename == name and entry.flag_bits & 1 for entry in archive.infolist()):
            raise LogError(f"{name} is encrypted: unpack it first")
        return stack.enter_context(archive.open(name))
    tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))  # noqa: SIM115
    for entry in tar:
        if entry.name == name:
            found = tar.extractfile(entry)
            assert found is not None  # links are left out of the names
            return found
    raise LogError(f"the archive holds no {name} any more")
