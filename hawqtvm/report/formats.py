"""A comparison in the formats that CI systems read: markdown, JUnit XML, github-action-benchmark's array."""

import xml.etree.ElementTree as ElementTree

from hawqtvm.report.compare import IMPROVEMENT, INCONCLUSIVE, PASS, REGRESSION, Comparison, Row
from hawqtvm.report.report import Report

MARKS = {REGRESSION: "❌", INCONCLUSIVE: "❔", IMPROVEMENT: "✅", PASS: "✅"}
SENTENCES = {
    REGRESSION: "slower, confirmed by a second measurement",
    INCONCLUSIVE: "too noisy, or too unconfirmed, to tell",
    IMPROVEMENT: "faster",
    PASS: "not slower",
}
LAYERS_SHOWN = 10


def markdown(report: Report) -> str:
    """For a pull request's comment or a job's summary."""
    comparison = report.comparison
    lines = [f"### {MARKS[comparison.verdict]} Latency: {comparison.verdict} ({SENTENCES[comparison.verdict]})", ""]
    lines += [f"{_sides(comparison)}", ""]
    lines += _table([row for row in comparison.rows if row.layer is None], "network", lambda row: row.network)
    for row in (row for row in comparison.rows if row.layer is None):
        layers = by_change(comparison.of(row.network)[1])
        shown, rest = layers[:LAYERS_SHOWN], layers[LAYERS_SHOWN:]
        lines += ["", f"Layers of {row.network}, those that changed most first:", ""]
        lines += _table(shown, "layer", lambda row: row.layer)
        if rest:
            lines += ["", f"<details><summary>{len(rest)} more layers</summary>", ""]
            lines += [*_table(rest, "layer", lambda row: row.layer), "", "</details>"]
    if report.dated:
        lines += ["", "Changes over the history:", ""]
        lines += [f"- {sentence(found.as_json)}" for found in report.dated]
    return "\n".join(lines) + "\n"


def sentence(change: dict) -> str:
    """A dated change in words."""
    what = change["network"] + (f", layer {change['layer']}" if change["layer"] else "")
    since = f"{change['measured']}, commit {change['commit'] or 'not given'}"
    word = "step" if change["kind"] == "step" else "drift"
    return f"{what} on {change['device']}: {word} to {change['ratio']:.3f} times, since {since}"


def by_change(rows: list[Row]) -> list[Row]:
    """Regressions first, then by how much time was won or lost."""
    return sorted(rows, key=lambda row: (row.verdict != REGRESSION, -abs(row.head_us - row.base_us)))


def junit(report: Report) -> str:
    """A test case for each network and layer: a regression fails; noise is an error of a network, skips a layer."""
    suites = ElementTree.Element("testsuites", name="latency")
    comparison = report.comparison
    for whole in (row for row in comparison.rows if row.layer is None):
        rows = [whole, *comparison.of(whole.network)[1]]
        counts = {"failures": REGRESSION, "skipped": INCONCLUSIVE}
        numbers = {name: str(sum(row.verdict == verdict for row in rows)) for name, verdict in counts.items()}
        if whole.verdict == INCONCLUSIVE:
            numbers = numbers | {"skipped": str(int(numbers["skipped"]) - 1), "errors": "1"}
        suite = ElementTree.SubElement(suites, "testsuite", name=whole.network, tests=str(len(rows)), **numbers)
        for row in rows:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"latency.{row.network}",
                name=row.layer or "network",
                time=f"{row.head_us / 1e6:.9f}",
            )
            if row.verdict == REGRESSION:
                ElementTree.SubElement(case, "failure", type=REGRESSION, message=f"slower: {change(row)}")
            elif row.verdict == INCONCLUSIVE:
                kind = "skipped" if row.layer else "error"
                ElementTree.SubElement(case, kind, type=INCONCLUSIVE, message=row.reason)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def benchmark(report: Report) -> list[dict]:
    """Head's times as github-action-benchmark's customSmallerIsBetter takes them."""
    return [
        {
            "name": row.network + (f" / {row.layer}" if row.layer else ""),
            "unit": "us",
            "value": round(row.head_us, 3),
            "range": f"± {row.head_us * (row.shift.high - row.shift.low) / 2 / row.shift.ratio:.3f}",
            "extra": f"{row.verdict}: {change(row)}",
        }
        for row in report.comparison.rows
    ]


def change(row: Row) -> str:
    shift = row.shift
    return f"{shift.ratio:.3f}x base ({shift.low:.3f} to {shift.high:.3f}), p {row.p:.2g}"


def _sides(comparison: Comparison) -> str:
    how = "in turns" if comparison.interleaved else "in separate sessions, in units of a yardstick"
    runs = comparison.head, comparison.base
    commits = " against ".join(_cell(run.commit[:12]) if run.commit else "no commit given" for run in runs)
    return f"{commits}, measured {how} on `{comparison.head.device.name}`, {len(comparison.head.load)} rounds."


def _table(rows: list[Row], title: str, name) -> list[str]:
    lines = [f"| {title} | base us | head us | ratio | 95 % limits | p | verdict |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        shift = row.shift
        lines.append(
            f"| {_cell(name(row))} | {row.base_us:.1f} | {row.head_us:.1f} | {shift.ratio:.3f} | {shift.low:.3f} to "
            f"{shift.high:.3f} | {row.p:.2g} | {MARKS[row.verdict]} {row.verdict} |"
        )
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
