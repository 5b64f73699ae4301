"""Files appear whole or not at all, and every failure is one clear message."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from hawqtvm.errors import BadInput
from hawqtvm.files import atomic_directory, check_directory, read_json, sha256_arrays, sha256_file, write_atomic

MARK = "manifest.json", "hawqtvm-artifact"
OLD = '{"format": "hawqtvm-artifact", "vers'


def fail(error):
    def raising(*_, **__):
        raise error

    return raising


@pytest.fixture
def old(tmp_path):
    """An artifact directory that must survive what goes wrong."""
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "manifest.json").write_text(OLD)
    return directory


def unchanged(old):
    return [p.name for p in old.parent.iterdir()] == ["artifact"] and (old / "manifest.json").read_text() == OLD


@pytest.mark.parametrize("content", ["text, µs\n", b"\x00\xff"])
def test_write_atomic_writes_and_replaces(tmp_path, content):
    path = tmp_path / "new" / "plan.json"
    for data in (b"before", content):
        write_atomic(path, data)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_write_atomic_keeps_a_symbolic_link(tmp_path):
    (tmp_path / "latest").symlink_to(tmp_path / "plan.json")
    write_atomic(tmp_path / "latest", "x")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "plan.json").read_text() == "x"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), BadInput),
        (OSError(errno.EROFS, "Read-only file system"), BadInput),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error, shown, where):
    path = tmp_path / "plan.json"
    path.write_text("old")
    monkeypatch.setattr(os, where, fail(error))
    with pytest.raises(shown) as caught:
        write_atomic(path, "new")
    if shown is BadInput:
        assert str(path) in str(caught.value) and error.strerror in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "plan.json", Path("/proc/nowhere/plan.json"), tmp_path / ("x" * 300)):
        with pytest.raises(BadInput, match=f"cannot write {path}"):
            write_atomic(path, "x")
        with pytest.raises(BadInput, match=f"cannot write {path}"), atomic_directory(path, *MARK):
            pass


def test_devices_and_directories_are_not_replaced(tmp_path):
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(BadInput, match="not a regular file"):
            write_atomic(path, "x")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("before", ["nothing", "empty", "ours"])
def test_atomic_directory_takes_the_place(tmp_path, before):
    path = tmp_path / "deep" / "artifact"
    if before != "nothing":
        path.mkdir(parents=True)
        if before == "ours":
            (path / "manifest.json").write_text(OLD)
    check_directory(path, *MARK)
    with atomic_directory(path, *MARK) as fresh:
        assert fresh.parent == path.parent
        (fresh / "sub").mkdir()
        (fresh / "sub" / "a").write_text("new")
    assert [p.relative_to(path) for p in sorted(path.rglob("*"))] == [Path("sub"), Path("sub/a")]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.png", ""),
        ("manifest.json", ""),
        ("manifest.json", '{"name": "a web page of the user"}'),
        ("checkpoint.json", '{"format": "hawqtvm-checkpoint", "version": 1}'),
        ("checkpoint.json", '{"format": "hawqtvm-artifact", "version": 1}'),
    ],
)
def test_atomic_directory_refuses_what_is_not_ours(tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    for place, message in (
        (tmp_path, "is not empty and not a hawqtvm-artifact"),
        (file, "a file has that name"),
        (file / "deeper" / "still", f"cannot write {file}/deeper/still"),
    ):
        with pytest.raises(BadInput, match=message):
            check_directory(place, *MARK)
        with pytest.raises(BadInput, match=message), atomic_directory(place, *MARK):
            raise AssertionError("never entered")
    assert file.read_text() == content


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.EIO, "other", "/elsewhere")])
def test_an_exception_inside_leaves_the_old_directory(old, error):
    with pytest.raises(type(error)), atomic_directory(old, *MARK) as fresh:
        (fresh / "manifest.json").write_text("half")
        raise error
    assert unchanged(old)


def test_a_full_disk_inside_is_bad_input(old):
    with pytest.raises(BadInput, match="No space left on device; free some space"), atomic_directory(old, *MARK):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(BadInput, match=f"cannot write {old}"), atomic_directory(old, *MARK) as fresh:
        (fresh / "absent" / "file").write_text("")
    assert unchanged(old)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EBUSY, "Device or resource busy")])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_failed_swap_leaves_the_old_directory(old, monkeypatch, error, nth):
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(self)
        if len(calls) == nth:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), atomic_directory(old, *MARK) as fresh:
        (fresh / "manifest.json").write_text("new")
    assert unchanged(old)


def test_read_json(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"format": "hawqtvm-plan", "version": 2, "bits": {"a": 4}}')
    assert read_json(path, "hawqtvm-plan", 2)["bits"] == {"a": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "hawqtvm-plan", "vers', "not JSON .* cut short"),
        ("", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "some other file, not a hawqtvm-plan"),
        ('{"version": 1}', "some other file, not a hawqtvm-plan"),
        ('{"format": "hawqtvm-artifact", "version": 1}', "a hawqtvm-artifact, not a hawqtvm-plan"),
        ('{"format": "hawqtvm-plan", "version": 3}', "version 3, newer .* update"),
        ('{"format": "hawqtvm-plan", "version": 1}', "version 1; this hawqtvm reads 2: write it again"),
        ('{"format": "hawqtvm-plan", "version": "2"}', "no valid version"),
        ('{"format": "hawqtvm-plan"}', "no valid version"),
    ],
)
def test_read_json_explains(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=message) as caught:
        read_json(path, "hawqtvm-plan", 2)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_read_json_of_missing_and_unreadable(tmp_path):
    with pytest.raises(BadInput, match="no such file: .*absent.json"):
        read_json(tmp_path / "absent.json", "hawqtvm-plan", 1)
    with pytest.raises(BadInput, match="cannot read .*Is a directory"):
        read_json(tmp_path, "hawqtvm-plan", 1)


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(BadInput, match="cannot read .*absent"):
        sha256_file(tmp_path / "absent")


def test_sha256_of_arrays_sees_names_dtypes_shapes_and_values():
    a, b = np.arange(6, dtype=np.int8).reshape(2, 3), np.ones(2, np.float32)
    same = sha256_arrays({"a": a, "b": b})
    assert same == sha256_arrays({"b": b.astype(">f4"), "a": np.asfortranarray(a)})
    others = [{"a": a}, {"a": a, "c": b}, {"a": a.T, "b": b}, {"a": a.astype("u1"), "b": b}, {"a": a + 1, "b": b}]
    assert len({same, *map(sha256_arrays, others)}) == len(others) + 1
