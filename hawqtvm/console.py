"""What a command prints: results on stdout, progress on stderr, one line for an error."""

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from hawqtvm.errors import HawqtvmError

WIDTH = 78
SECONDS_A_LINE = 5.0
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?[%x]?")


def note(message: str) -> None:
    """A line of progress or warning, on stderr."""
    print(message, file=sys.stderr, flush=True)


class Progress:
    """``with Progress("kernels", 9) as step: step(name)``: a line rewritten on a terminal, sparse lines elsewhere."""

    def __init__(self, what: str, total: int | None = None):
        self.what, self.total, self.done = what, total, 0

    def __enter__(self) -> "Progress":
        self.terminal = sys.stderr.isatty()
        self.start = self.shown = time.monotonic()
        return self

    def __call__(self, name: str = "") -> None:
        self.done += 1
        of = f"/{self.total}" if self.total else ""
        text = f"{self.what} {self.done}{of} {name}".rstrip()
        if self.terminal:
            self.rewrite(text)
        elif time.monotonic() - self.shown > SECONDS_A_LINE:
            note(text)
            self.shown = time.monotonic()

    def __exit__(self, kind, *_) -> None:
        if self.terminal:
            self.rewrite("")  # or what comes next would be written over its beginning
        if kind is None:
            note(f"{self.what}: {self.done} in {time.monotonic() - self.start:.1f} s")

    def rewrite(self, text: str) -> None:
        print(text[:WIDTH].ljust(WIDTH), end="\r", file=sys.stderr, flush=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says ``what`` is under way, every few seconds that it still is, and how long it took: for one long call."""
    start, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(SECONDS_A_LINE):
            note(f"{what}: {time.monotonic() - start:.0f} s so far")

    note(f"{what} ...")
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
    note(f"{what}: {time.monotonic() - start:.1f} s")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns; those that hold only numbers, and gaps (``-``), to the right."""
    cells = [[str(c) for c in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(c in ("", "-") or NUMBER.fullmatch(c) for c in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip()

    return "\n".join([line(headers), line(["-" * w for w in widths]), *map(line, cells)])


class Parser(argparse.ArgumentParser):
    """A stage's options; a wrong one is bad input as any other: one line on stderr, exit code 2."""

    def __init__(self, stage: str, description: str):
        super().__init__(
            prog=f"python -m hawqtvm.{stage}",
            description=description,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
        )
        self.add_argument("--json", action="store_true", help="one JSON object on stdout, everything else on stderr")

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def command(main: Callable[[Sequence[str] | None], int]) -> None:
    """Runs a stage's ``main`` and leaves with its exit code; errors become one line on stderr."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as an interrupt does
    try:
        code = main(None)
        sys.stdout.flush()
    except HawqtvmError as error:
        note(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        note("interrupted; nothing was left half-written")
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(130)  # where Python ends by itself, a thread that comes back from TVM meanwhile aborts the process
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
        _drop_stdout()
    except OSError as error:
        note(f"error: {error}; check that it can be read and written, and that there is space")
        code = 2
        _drop_stdout()
    sys.exit(code)


def _drop_stdout() -> None:
    """What is still to be written has no reader, or no space; without this, Python would try again on leaving."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(result: dict) -> None:
    print(json.dumps(result, indent=2), flush=True)
