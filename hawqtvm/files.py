"""What every stage needs of files: results appear whole or not at all, and what is read back is what was meant."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

from hawqtvm.errors import BadInput

HEAD = 4096  # bytes of a marker file in which its kind stands
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: str | os.PathLike, content: bytes | str) -> None:
    """Write ``content`` (str as UTF-8) to ``path``: afterwards the file holds all of it, or is as it was.

    Missing parent directories are made.  BadInput when the place cannot be written; on that, as on any exception,
    nothing is left behind.
    """
    path = _target(path)
    data = content.encode() if isinstance(content, str) else content
    fresh = _beside(path)
    with _naming(path):
        # a rename would put a plain file in the place of /dev/stdout
        if path.exists() and not path.is_file():
            raise BadInput(f"cannot write {path}: it is not a regular file; choose another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            _sync(path.parent)
        finally:
            _forget(fresh)


def append_lines(path: str | os.PathLike, lines: str) -> None:
    """Add whole lines to a file, made if need be, in one write; what a killed writer left ends as a line of its own.

    BadInput when the place cannot be written.
    """
    path = _target(path)
    data = lines.encode()
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                data = data if file.read(1) == b"\n" else b"\n" + data
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())


@contextmanager
def atomic_directory(path: str | os.PathLike, marker: str, kind: str):
    """Yield a fresh directory beside ``path`` to fill; on leaving, it takes the place of ``path``.

    What is there may only be nothing, an empty directory, or an older one of the same ``kind``, as its file ``marker``
    says.  On any exception, an interrupt too, the fresh directory is removed and ``path`` stays as it was.  BadInput
    when ``path`` holds anything else, or when the place cannot be written.
    """
    path = _target(path)
    _refuse_foreign(path, marker, kind)
    fresh, old = _beside(path), _beside(path)
    try:
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.mkdir()
        try:
            yield fresh
        except OSError as error:
            # the caller's other files are not ours to explain
            if error.errno in DISK_FULL or _names(error, fresh):
                raise _cannot_write(path, error) from error
            raise
        with _naming(path):
            for entry in [*fresh.rglob("*"), fresh]:
                _sync(entry)
            _refuse_foreign(path, marker, kind)  # it may have been made in the meantime
            if path.exists():
                path.rename(old)
            fresh.rename(path)
            _sync(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)  # interrupted between the two renames
        _forget(fresh)
        _forget(old)


def check_directory(path: str | os.PathLike, marker: str, kind: str) -> None:
    """BadInput where :func:`atomic_directory` would find no place: for asking before long work, not after it."""
    path = _target(path)
    _refuse_foreign(path, marker, kind)
    above = next(p for p in path.parents if p.exists())
    if not above.is_dir():
        raise BadInput(f"cannot write {path}: {above} is a file; choose another place")


def check_appendable(path: str | os.PathLike) -> None:
    """BadInput where :func:`append_lines` would find no place: for asking before long work, not after it."""
    path = _target(path)
    with _naming(path):
        if path.is_dir():
            raise BadInput(f"cannot write {path}: it is a directory; choose another place")
        held = path if path.exists() else next(p for p in path.parents if p.exists())
        if held != path and not held.is_dir():
            raise BadInput(f"cannot write {path}: {held} is a file; choose another place")
        if not os.access(held, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def parse_json(path: Path, what: str, remedy: str):
    """The value in a JSON file, called ``what`` in messages.

    BadInput when it is missing (``remedy`` says what to do), unreadable, or not JSON (cut short, for one).
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"no such {what}: {path}; {remedy}") from None
    except OSError as error:
        raise BadInput(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}): damaged or cut short; write the {what} again") from None


def read_json(path: str | os.PathLike, kind: str, version: int) -> dict:
    """The object in the JSON file ``path``, which must say ``{"format": kind, "version": version}``.

    BadInput when the file is missing or unreadable, not JSON (cut short, for one), of another kind, or of a version
    that this hawqtvm does not read.
    """
    path = Path(path)
    found = parse_json(path, "file", "run the stage that writes it, or name the right one")
    if not isinstance(found, dict) or found.get("format") != kind:
        other = found.get("format") if isinstance(found, dict) else None
        raise BadInput(f"{path} is {f'a {other}' if other else 'some other file'}, not a {kind}; name the right file")
    has = found.get("version")
    if type(has) is not int or has < 1:
        raise BadInput(f"{path} has no valid version ({has!r}): damaged; write it again")
    if has > version:
        raise BadInput(f"{path} is a {kind} of version {has}, newer than this hawqtvm reads: update it")
    if has < version:
        raise BadInput(f"{path} is a {kind} of version {has}; this hawqtvm reads {version}: write it again")
    return found


def sha256_file(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes; BadInput when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def sha256_arrays(arrays: dict) -> str:
    """Hex digest of named numpy arrays: names, dtypes, shapes and values, whatever their order or memory layout."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _target(path: str | os.PathLike) -> Path:
    """Where a write to ``path`` ends: symbolic links stay, what they point to is replaced."""
    return Path(os.path.realpath(path))


def _names(error: OSError, directory: Path) -> bool:
    """Whether the error is about something in ``directory``."""
    return isinstance(error.filename, str | os.PathLike) and directory in Path(error.filename).parents


def _beside(path: Path) -> Path:
    """A name for a temporary on the same file system, where a rename is one step."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _refuse_foreign(path: Path, marker: str, kind: str) -> None:
    with _naming(path):
        if not path.exists():
            return
        if not path.is_dir():
            raise BadInput(f"cannot write the directory {path}: a file has that name; choose another")
        if any(path.iterdir()) and not _says(path / marker, kind):
            raise BadInput(f"{path} is not empty and not a {kind}; choose another directory, or empty it")


def _says(marker: Path, kind: str) -> bool:
    """Whether the file names the kind, be it cut short after that."""
    if not marker.is_file():
        return False
    with marker.open("rb") as file:
        return json.dumps(kind).encode() in file.read(HEAD)


def _forget(path: Path) -> None:
    """Remove a temporary; never hides the exception that led here behind one of its own."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def _sync(path: Path) -> None:
    """Ask the disk to hold ``path`` (a file, or a directory's names) now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: Path):
    """OSErrors become BadInput that names ``path``, the reason and what to do."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> BadInput:
    remedy = "free some space, or choose another place" if error.errno in DISK_FULL else "choose another place"
    return BadInput(f"cannot write {path}: {error.strerror or error}; {remedy}")
