"""What this process holds in memory, as Linux tells it."""

from pathlib import Path

PROC = Path("/proc/self")


def held() -> dict[str, int]:
    """Bytes resident now ("rss"), those of them written and not shared ("private_dirty"), and the "peak" of rss."""
    rollup = _fields(PROC / "smaps_rollup")
    return {
        "rss": rollup["Rss"],
        "private_dirty": rollup["Private_Dirty"],
        "peak": _fields(PROC / "status")["VmHWM"],
    }


def _fields(path: Path) -> dict[str, int]:
    """The lines "Name:   123 kB" of a file in /proc."""
    split = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in split if words[-1:] == ["kB"]}
