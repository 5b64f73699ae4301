"""Talks to a worker process."""

import json
import selectors
import subprocess
import sys
from pathlib import Path


class SystemFailed(Exception):
    """A system could not be built, loaded or run; the message is the reason."""


class Process:
    """A worker in a process of its own; its stderr goes to the file `log`."""

    def __init__(self, log: Path, timeout_s: float = 600):
        self.log, self.timeout_s = log, timeout_s
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.peers.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._buffer = b""

    def ask(self, do: str, **arguments) -> dict:
        """Send one command and wait for its answer.

        Raises:
            SystemFailed: the worker says so, dies, or does not answer in time.
        """
        try:
            self._process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._process.stdin.flush()
            answer = json.loads(self._line())
        except BrokenPipeError:
            raise SystemFailed(self._death()) from None
        if "failed" in answer:
            raise SystemFailed(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process, at once if it does not do so by itself."""
        try:
            self._process.communicate(b'{"do": "quit"}\n', timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError, ValueError):
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _line(self) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(self.timeout_s):
                    self._process.kill()
                    raise SystemFailed(f"no answer in {self.timeout_s:g} s; see {self.log}")
                piece = self._process.stdout.read1(65536)
                if not piece:
                    raise SystemFailed(self._death())
                self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _death(self) -> str:
        return f"the worker ended with code {self._process.wait()}; see {self.log}"
