"""Where candidates are measured: TVM RPC servers, one of this machine's own or those of a tracker."""

import os
import socket
import threading
import time
from contextlib import contextmanager
from functools import partial

from tvm import rpc

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runtime.cpu import cpu_features
from hawqtvm.tune.remote_machine import Machine, remote_machine
from schedules.tuning_log import this_device

PORTS = (9190, 9990)
SESSION = 600  # seconds after which a server ends a session: one in which a kernel hangs must not hold it for ever
GONE = 20.0  # seconds without any device until a tracker's work is given up
ASKED = 2.0  # seconds between two questions about that
ANSWER = 10.0  # seconds until a tracker answers
HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"  # as what a loaded library touches lies in them


class Local:
    """A server in a process of its own on this machine, started when it is needed and again when it has died."""

    count, name = 1, "this machine"
    faults = 1  # only a candidate ends its sessions

    def __init__(self, threads: int):
        self.threads, self.machine = threads, Machine(this_device(), cpu_features())
        self._server: rpc.Server | None = None

    def connect(self) -> rpc.RPCSession:
        """A session that no one else has."""
        if self._server is None:
            with _environment(*HUGE_PAGES):
                self._server = rpc.Server(
                    "127.0.0.1", *PORTS, silent=True, server_init_callback=partial(_prepare, self.threads, os.getpid())
                )
        return rpc.connect("127.0.0.1", self._server.port, session_timeout=SESSION)

    def abandon(self) -> None:
        """Ends the session that is under way, whatever hangs in it, and its server."""
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def check(self, waited: float) -> None:
        """The server is this process's own: it comes."""


@contextmanager
def _environment(name: str, value: str):
    """For processes that are started inside."""
    before = os.environ.get(name)
    os.environ[name] = f"{before}:{value}" if before else value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _prepare(threads: int, parent: int) -> None:
    """In the server's process: its sessions' threads, pinned to no CPU, and its end when its parent was killed."""
    os.environ |= {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ASKED)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class Tracker:
    """The devices that a TVM RPC tracker at ``host:port`` has under ``key``, all of one kind.

    ``threads``: of a kernel, by default as many as they have cores.  BadInput where there is no such tracker, no such
    device, or where the devices differ.
    """

    faults = 2  # a session that ended in a candidate's turn may have been the device's end

    def __init__(self, address: str, key: str, threads: int | None = None):
        self.address, self.key, self.name = address, key, f"a device with key {key}"
        self._place = _place(address)
        self._asked = 0.0
        self._seen = time.monotonic()
        self.count = len(self._devices())
        if not self.count:
            raise BadInput(
                f"the tracker {address} has no device with key {key}: start python -m tvm.exec.rpc_server "
                f"--tracker {address} --key {key} on one"
            )
        self.machine = remote_machine(self._request())
        self.threads = threads or self.machine.device.cores

    def connect(self) -> rpc.RPCSession:
        """A session on a device that is free, once there is one."""
        remote = self._request()
        if remote_machine(remote) != self.machine:
            raise BadInput(f"devices with key {self.key} differ: give each kind of machine a key of its own")
        return remote

    def abandon(self) -> None:
        """The server ends the session by itself, when its time is over."""

    def check(self, waited: float) -> None:
        """CheckFailed when for some time there was no device to wait for; ``waited``: seconds so far."""
        now = time.monotonic()
        if now - self._asked < ASKED:
            return
        self._asked = now
        if self._devices():
            self._seen = now
        elif min(waited, now - self._seen) > GONE:
            raise CheckFailed(
                f"all devices with key {self.key} of the tracker {self.address} are gone: start one and run again, "
                "which goes on from here"
            )

    def _request(self) -> rpc.RPCSession:
        return rpc.connect_tracker(*self._place).request(self.key, session_timeout=SESSION)

    def _devices(self) -> list[dict]:
        try:
            # TVM tries for a minute where no one listens
            socket.create_connection(self._place, timeout=ANSWER).close()
            tracker = rpc.connect_tracker(*self._place)
            servers = tracker.summary()["server_info"]
            tracker.close()
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"no tracker at {self.address} ({error}): start python -m tvm.exec.rpc_tracker there"
            ) from error
        return [server for server in servers if server["key"] == f"server:{self.key}"]


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise BadInput(f"--tracker {address}: give host:port, such as 127.0.0.1:9190")
    return host, int(port)
