"""Trials as the table in the docs."""

import statistics

from scripts.trust.trials import HEADS, LOADS

HEADERS = "| compared | machine | comparisons | told slower | inconclusive | pass | change seen | seconds each |"


def markdown(trials: list[dict]) -> str:
    """A row for each load and kind that has trials.

    Told slower: the slowed layer, or the network, is a regression; in A/A, anything at all is: a false alarm.
    """
    lines = [HEADERS, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for load in LOADS:
        for kind in HEADS:
            found = [trial for trial in trials if trial["load"] == load and trial["kind"] == kind]
            if not found:
                continue
            aa = HEADS[kind] == "same"
            hits = sum(bool(trial["alarms"]) if aa else trial["row"]["verdict"] == "regression" for trial in found)
            others = {name: sum(_verdict(trial, aa) == name for trial in found) for name in ("inconclusive", "pass")}
            ratio = statistics.median(trial["row"]["ratio"] for trial in found)
            seconds = statistics.median(trial["seconds"] for trial in found)
            lines.append(
                f"| {kind} | {load} | {len(found)} | {hits} | "
                f"{others['inconclusive']} | {others['pass']} | {100 * (ratio - 1):+.1f} % | {seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def _verdict(trial: dict, aa: bool) -> str:
    return trial["verdict"] if aa else trial["row"]["verdict"]
