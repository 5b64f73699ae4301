"""Trials as the table in the docs."""

import statistics
from collections import Counter

from scripts.trust.trials import HEADS, LOADS

HEADERS = "| compared | machine | comparisons | regression | its row | inconclusive | pass | change seen | seconds |"


def markdown(trials: list[dict]) -> str:
    """A row for each load and kind that has trials.

    Verdicts are of whole comparisons, by which they exit; a regression in A/A is a false alarm.  Its row: the
    layer that was slowed, or the network, is a regression itself.
    """
    lines = [HEADERS, "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for load in LOADS:
        for kind in HEADS:
            found = [trial for trial in trials if trial["load"] == load and trial["kind"] == kind]
            if not found:
                continue
            told = Counter(trial["verdict"] for trial in found)
            rows = sum(trial["row"]["verdict"] == "regression" for trial in found)
            ratio = statistics.median(trial["row"]["ratio"] for trial in found)
            seconds = statistics.median(trial["seconds"] for trial in found)
            lines.append(
                f"| {kind} | {load} | {len(found)} | {told['regression']} | {rows} | {told['inconclusive']} | "
                f"{told['pass'] + told['improvement']} | {100 * (ratio - 1):+.1f} % | {seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"
