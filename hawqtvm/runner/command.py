"""``python BUNDLE.pyz``: checks and times a bundle's kernels on this machine's GPU."""

from __future__ import annotations

import argparse
import json
import sys

from . import attempt, sanitize
from .bundle import Bundle
from .driver import Driver, DriverError, find
from .results import Foreign, Results
from .worker import work

WRONG, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Refused(Exception):
    """One line that names what cannot be used."""


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, usage="python BUNDLE.pyz --out FILE.jsonl [--device N]")
    parser.add_argument("--out", metavar="FILE", help="results, appended; what is there is not measured again")
    parser.add_argument(
        "--device", metavar="N", type=int, help="the driver's number of it (default: the first that fits)"
    )
    parser.add_argument(
        "--sanitize",
        metavar="N",
        nargs="?",
        const=1,
        type=int,
        help="instead: check N candidates of each workload (default: only its default) under compute-sanitizer",
    )
    parser.add_argument(attempt.WORKER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv[1:])
    if not (options.out or options.sanitize or options.worker):
        parser.error("give --out FILE.jsonl for the results, or --sanitize")
    if options.sanitize is not None and options.sanitize < 1:
        parser.error("--sanitize: give a number of candidates, 1 or more")
    return options


def main(argv: list[str]) -> int:
    """``argv[0]`` is the bundle.  0: all is right; 1: a candidate is not; 2: bad input."""
    options, path = parsed(argv), argv[0]
    bundle = Bundle(path)
    if options.worker:
        asked = json.loads(options.worker)
        return work(bundle, asked["number"], asked["left_out"], asked["device"], asked["timed"])
    try:
        device = find(options.device, bundle.about["arch"])
        say(f"{bundle.about['title']}, on {Driver().facts(device).name}")
        if options.sanitize:
            return sanitized(bundle, device, options.sanitize)
        return measured(bundle, device, options.out)
    except (Refused, DriverError, attempt.Broken) as error:
        say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return INTERRUPTED


def measured(bundle: Bundle, device: int, out: str) -> int:
    driver = Driver()
    try:
        results = Results(out, driver.facts(device), driver.version(), bundle.about)
        for number in range(len(bundle.workloads)):
            if number not in results.done:
                results.add(number, attempt.measured(bundle.path, number, device))
            tell(bundle, number, results.done[number])
    except Foreign as found:
        raise Refused(f"{out} holds something else than results ({found}): choose another file") from None
    except OSError as error:
        raise Refused(f"cannot write {out}: {error.strerror or error}; choose another place") from None
    wrong = [line for lines in results.done.values() for line in lines if line["error"] is not None]
    say(f"{len(results.done)} workloads are in {out}; candidates that are wrong or do not run: {len(wrong)}")
    return WRONG if wrong else 0


def tell(bundle: Bundle, number: int, lines: list[dict]) -> None:
    """A workload's row, and why candidates failed."""
    workload, times = bundle.workloads[number], [line["median_us"] for line in lines if line["rounds_us"]]
    first = f"{lines[0]['median_us']:10.2f} us by default" if lines[0]["rounds_us"] else "the default failed"
    best = f"{min(times):10.2f} us best of {len(times)}" if times else "none runs"
    note = f" ({workload['record']['note']})" if "note" in workload["record"] else ""
    say(f"{number + 1:3}/{len(bundle.workloads)} {first}, {best}: {workload['name']}{note}")
    for line in lines:
        if line["error"] is not None:
            say(f"        failed: {line['error']}: {line['config']}")


def sanitized(bundle: Bundle, device: int, count: int) -> int:
    program = sanitize.find()
    if program is None:
        raise Refused("no compute-sanitizer on PATH: install CUDA's toolkit, or go without --sanitize")
    clean = True
    for number, workload in enumerate(bundle.workloads):
        found = sanitize.sanitized(program, bundle, number, device, count)
        clean = clean and not found
        told = "; ".join(f"{tool}: {what}" for tool, what in found.items()) or f"{', '.join(sanitize.TOOLS)} clean"
        say(f"{number + 1:3}/{len(bundle.workloads)} {workload['name']}: {told}")
    return 0 if clean else WRONG


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
