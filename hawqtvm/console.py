"""What a command prints: results on stdout, progress on stderr, one line for an error."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from hawqtvm.errors import HawqtvmError


def note(message: str) -> None:
    """A line of progress or warning, on stderr."""
    print(message, file=sys.stderr, flush=True)


class Progress:
    """``with Progress("compile", 9) as step: step(name)``: a line rewritten on a terminal, sparse lines elsewhere."""

    def __init__(self, what: str, total: int | None = None):
        self.what, self.total, self.done, self.shown = what, total, 0, 0.0

    def __enter__(self) -> "Progress":
        self.start = time.monotonic()
        return self

    def __call__(self, name: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if sys.stderr.isatty() or now - self.shown > 5:
            of = f"/{self.total}" if self.total else ""
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{self.what} {self.done}{of} {name}".ljust(78), end=end, file=sys.stderr, flush=True)
            self.shown = now

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            note(f"{self.what}: {self.done} in {time.monotonic() - self.start:.1f} s".ljust(78))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns; numbers to the right."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = [
        all(r[i].lstrip("-").replace(".", "", 1).rstrip("%x").isdigit() or r[i] in ("", "-") for r in cells)
        for i in range(len(headers))
    ]

    def line(row: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip()

    return "\n".join([line(headers), line(["-" * w for w in widths]), *map(line, cells)])


class Parser(argparse.ArgumentParser):
    """argparse's usage errors already leave with exit code 2."""

    def __init__(self, stage: str, description: str):
        super().__init__(prog=f"python -m hawqtvm.{stage}", description=description)
        self.add_argument("--json", action="store_true", help="one JSON object on stdout, everything else on stderr")


def command(main: Callable[[Sequence[str] | None], int]) -> None:
    """Runs a stage's ``main`` and leaves with its exit code; errors become one line on stderr."""
    try:
        code = main(None)
    except HawqtvmError as error:
        note(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        note("interrupted; nothing was left half-written")
        code = 130
    except BrokenPipeError:
        code = 0
    sys.exit(code)


def print_json(result: dict) -> None:
    print(json.dumps(result, indent=2))
