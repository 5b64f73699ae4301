"""The second measurement: the same artifacts again, if they are still there."""

from pathlib import Path

from hawqtvm.console import note
from hawqtvm.errors import HawqtvmError
from hawqtvm.report import machine
from hawqtvm.report.compare import Again
from hawqtvm.report.matching import matched
from hawqtvm.report.measure import measure, measure_pairs
from hawqtvm.report.run import Network, Run
from hawqtvm.runtime import threads as cpu_threads
from hawqtvm.runtime.artifact import check_runs_here, read_artifact


def again(base: Run, head: Run) -> Again:
    """Measures in turns the artifacts that base and head have in common; head's alone where base's are gone.

    None where head's are gone too, or were made anew, or this is another device.
    """

    def remeasure() -> tuple[Run, Run] | None:
        pairs = matched(base, head)
        befores, afters = zip(*pairs, strict=True)
        reason = _missing(head, afters)
        if reason:
            note(f"cannot measure again: {reason}")
            return None
        settings = {"rounds": len(head.load), "turns": len(head.load[0].yardstick_us), "threads": afters[0].threads}
        paths = [network.path for network in afters]
        if reason := _missing(base, befores):
            note(f"measuring head again; base cannot be: {reason}")
            return base, measure(paths, commit=head.commit, **settings)
        note("measuring base and head again, in turns")
        return measure_pairs(
            [network.path for network in befores], paths, commits=(base.commit, head.commit), **settings
        )

    return remeasure


def _missing(run: Run, networks: tuple[Network, ...]) -> str | None:
    """Why this machine cannot measure these artifacts as they were."""
    if run.device != machine.device():
        return f"this machine is {machine.device().name}, or has another system than when they were measured"
    if len({network.threads for network in networks}) > 1:
        return "they were measured with several numbers of threads"
    for network in networks:
        try:
            artifact = read_artifact(Path(network.path))
            check_runs_here(artifact)
            cpu_threads.choose(network.threads, artifact.threads)
        except HawqtvmError as error:
            return str(error)
        if artifact.sha256 != network.library:
            return f"{network.path} holds another library now"
    return None
