"""The report as markdown."""

import statistics

from scripts.peers.stats import ratio_by_round, summary
from scripts.peers.systems import BASELINE, SYSTEMS

MISSING = "–"


def markdown(report: dict) -> str:
    """The report of `__main__` (its "machine", "versions", "cases", "cold_start" and "memory") as markdown."""
    machine = report["machine"]
    lines = [
        "# hawqtvm against other INT8 engines",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['isa']) or 'no VNNI or AMX'}; "
        f"{report['date']}; seeded random weights, the same for every system.",
        "",
    ]
    for name in report["systems"]:
        versions = " ".join(f"{package} {report['versions'][package]}" for package in SYSTEMS[name].packages)
        lines.append(f"- **{name}**: {SYSTEMS[name].setting} ({versions})")
    if report["cases"]:
        lines += ["", *_latency(report["cases"])]
    if report["cold_start"]:
        lines += ["", *_cold_start(report["cold_start"])]
    if report["memory"]:
        lines += ["", *_memory(report["memory"])]
    return "\n".join(lines) + "\n"


def _latency(cases: list[dict]) -> list[str]:
    lines = [
        "One inference from float32 NCHW to logits, milliseconds. Times: the median over rounds of the ratio to "
        f"{BASELINE} in the same round; below 1 is faster. Error: L2 distance to the float32 logits.",
        "",
        f"| model | batch | threads | system | median | min | IQR | times {BASELINE} | error |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        baseline = case["systems"].get(BASELINE, {}).get("rounds", [])
        for name, result in case["systems"].items():
            row = [case["model"], str(case["batch"]), str(case["threads"]), name]
            samples = [value for samples in result["rounds"] for value in samples]
            if result.get("failed") or not samples:
                row += [f"failed: {_cell(result.get('failed', 'no samples'))}", *[MISSING] * 4]
            else:
                found, ratio = summary(samples), ratio_by_round(result["rounds"], baseline)
                row += [f"{found[key]:.2f}" for key in ("median", "min", "iqr")]
                row += [MISSING if ratio is None else f"{ratio:.2f}", f"{result['error']:.1%}"]
            lines.append("| " + " | ".join(row) + " |")
    return lines


def _cold_start(cold: dict) -> list[str]:
    lines = [
        f"Cold start: from process start to the first logits, {cold['model']}, batch {cold['batch']}, "
        f"{cold['threads']} thread(s), milliseconds; a fresh process each time, files in the page cache.",
        "",
        "| system | median | min | runs |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, result in cold["systems"].items():
        if result.get("failed") or not result["ms"]:
            lines.append(f"| {name} | failed: {_cell(result.get('failed', 'no samples'))} | {MISSING} | {MISSING} |")
        else:
            found = summary(result["ms"])
            lines.append(f"| {name} | {found['median']:.0f} | {found['min']:.0f} | {found['count']} |")
    return lines


def _memory(cases: list[dict]) -> list[str]:
    lines = [
        "Memory of a fresh process with one system, MB (10^6 bytes), medians. Peak: most resident at any time (VmHWM), "
        "loading included. Libraries: resident with Python, numpy and the engine alone. Load adds: resident on top, "
        "network loaded. Run adds: resident on top of that after inferences. Private: written and not shared, after "
        "inferences, and what of it the network adds to the libraries. Disk: what running needs, weights of it, and "
        "with the checkpoint that an artifact is verified with.",
        "",
        "| model | batch | threads | system | peak | libraries | load adds | run adds | private | network's | disk "
        "| weights | all |",
        "| --- | ---: | ---: | --- " + "| ---: " * 9 + "|",
    ]
    for case in cases:
        for name, result in case["systems"].items():
            row = [case["model"], str(case["batch"]), str(case["threads"]), name]
            if result.get("failed") or not result["runs"]:
                row += [f"failed: {_cell(result.get('failed', 'no samples'))}", *[MISSING] * 8]
            else:
                row += [_megabytes(size) for size in _sizes(result)]
            lines.append("| " + " | ".join(row) + " |")
    return lines


def _sizes(result: dict) -> list[float | None]:
    """A row of the memory table, bytes."""

    def typical(stage: str, what: str, over: str | None = None) -> float:
        return statistics.median(run[stage][what] - (run[over][what] if over else 0) for run in result["runs"])

    return [
        typical("ran", "peak"),
        typical("imported", "rss"),
        typical("loaded", "rss", over="imported"),
        typical("ran", "rss", over="loaded"),
        typical("ran", "private_dirty"),
        typical("ran", "private_dirty", over="imported"),
        *(result["disk"][key] for key in ("run", "weights", "all")),
    ]


def _megabytes(size: float | None) -> str:
    return MISSING if size is None else f"{size / 1e6:.1f}"


def _cell(text: str) -> str:
    """One line without the characters that would end a table cell."""
    return " ".join(text.replace("|", "/").split())[:160]
