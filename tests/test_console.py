"""Tables line up, progress stays readable wherever it goes, and every end of a command has its exit code."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hawqtvm import console
from hawqtvm.console import Parser, Progress, table, waiting

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """What a terminal shows of ``text``: a carriage return starts to write over the line."""
    lines = [""]
    for part in text.replace("\n", "\r\n").split("\r"):
        if part.startswith("\n"):
            lines.append("")
            part = part[1:]
        lines[-1] = part + lines[-1][len(part) :]
    return [line.rstrip() for line in lines]


def test_a_table_aligns_words_left_and_numbers_right():
    rows = [["conv1", 8, "0.013", "3.3%", "1.1e-02"], ["layer1.0.conv1", "-", "12.5", "96.7%", "-"]]
    assert table(["layer", "bits", "ms", "share", "drift"], rows).splitlines() == [
        "layer           bits     ms  share    drift",
        "--------------  ----  -----  -----  -------",
        "conv1              8  0.013   3.3%  1.1e-02",
        "layer1.0.conv1     -   12.5  96.7%        -",
    ]


def test_shapes_and_versions_are_words():
    assert table(["a", "b"], [["8x32", "1.2.3"], ["1x4x4", "v"]]).splitlines()[2:] == ["8x32   1.2.3", "1x4x4  v"]


def test_an_empty_table_is_its_headers():
    assert table(["layer", "ms"], []).splitlines() == ["layer  ms", "-----  --"]


def test_a_ragged_table_is_an_error():
    with pytest.raises(ValueError):
        table(["a", "b"], [["only one"]])


def test_progress_elsewhere_is_sparse_and_has_no_trailing_spaces(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("kernels", 3) as step:
        for name in ("a", "b", "c"):
            if name == "c":
                monkeypatch.setattr(console, "SECONDS_A_LINE", -1.0)
            step(name)
    shown = sys.stderr.getvalue().splitlines()
    assert shown[0] == "kernels 3/3 c"
    assert shown[1].startswith("kernels: 3 in ") and shown[1].endswith(" s") and len(shown) == 2


def test_progress_on_a_terminal_rewrites_its_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("kernels", 2) as step:
        step("a layer of a long name" * 9)
        step("b")
        assert screen(sys.stderr.getvalue()) == ["kernels 2/2 b"]
    shown = screen(sys.stderr.getvalue())
    assert shown[0].startswith("kernels: 2 in ") and shown[1:] == [""]


def test_an_error_is_not_written_over_progress(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt), Progress("kernels") as step:
        step("a layer")
        raise KeyboardInterrupt
    console.note("stopped")
    assert screen(sys.stderr.getvalue()) == ["stopped", ""]


def test_a_wrong_option_is_one_line(capsys):
    parser = Parser("deploy", "Builds.")
    parser.add_argument("--batch", type=int)
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(["--batch", "x"])
    out, err = capsys.readouterr()
    assert leaving.value.code == 2 and out == ""
    assert err == "error: argument --batch: invalid int value: 'x'; see python -m hawqtvm.deploy --help\n"


def run(body, **options):
    """A command whose ``main`` has this body, in its own process."""
    text = (
        "import os, signal, sys, time\n"
        "from hawqtvm.console import command, print_json\n"
        "from hawqtvm.errors import BadInput, CheckFailed\n"
        f"def main(arguments):\n    {body}\n    return 0\n"
        "command(main)\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, "-c", text], stderr=subprocess.PIPE, text=True, timeout=60, env=environment, **options
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("pass", 0, ""),
        ("raise BadInput('no such plan')", 2, "error: no such plan\n"),
        ("raise CheckFailed('fc differs')", 1, "error: fc differs\n"),
        ("raise KeyboardInterrupt", 130, "interrupted; nothing was left half-written\n"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", 130, "interrupted; nothing was left half-written\n"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 130, "interrupted; nothing was left half-written\n"),
    ],
)
def test_exit_codes(body, code, message):
    done = run(body)
    assert (done.returncode, done.stderr, done.stdout) == (code, message, "")


def test_an_interrupt_while_a_thread_is_in_tvm_is_no_crash():
    done = run(
        "import tvm, threading; call = tvm.get_global_func('runtime.NumThreads')\n"
        "    threading.Thread(target=lambda: [call() for _ in iter(int, 1)], daemon=True).start()\n"
        "    print('shown'); raise KeyboardInterrupt"
    )
    assert (done.returncode, done.stderr) == (130, "interrupted; nothing was left half-written\n")
    assert done.stdout == "shown\n"


def test_a_bug_keeps_its_traceback():
    done = run("raise RuntimeError('a bug')")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_device_is_one_line(size):
    with Path("/dev/full").open("w") as full:
        done = run(f"print_json('x' * {size})", stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_left_is_no_success_and_no_noise():
    reading, writing = os.pipe()
    os.close(reading)
    done = run("print('x' * 100_000)", stdout=writing)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == ""


def test_print_json_is_one_object(capsys):
    console.print_json({"layers": [{"ms": None, "exact": True}]})
    assert json.loads(capsys.readouterr().out) == {"layers": [{"ms": None, "exact": True}]}


def test_a_long_wait_tells_that_it_goes_on_and_how_long_it_took(monkeypatch, capsys):
    monkeypatch.setattr(console, "SECONDS_A_LINE", 0.01)
    with waiting("compiling"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling ..."
    assert lines[1] == "compiling: 0 s so far"
    assert lines[-1] == "compiling: 0.1 s"


def test_a_wait_that_fails_says_nothing_more(capsys):
    with pytest.raises(ZeroDivisionError), waiting("compiling"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == "compiling ...\n"
