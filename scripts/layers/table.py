"""The report as markdown."""

import statistics

MISSING = "–"
NUMBERS = {
    "us": "{us:.0f}",
    "best": "{best_us:.0f}",
    "GMAC/s": "{gmacs:.0f}",
    "of peak": "{of_peak:.0%}",
    "of total": "{share:.1%}",
    "lost": "{lost_us:.0f}",
}
BESIDE = ("us", "best", "of peak")


def markdown(report: dict, by_loss: bool = False) -> str:
    """The report of `report.summarize` with "date" and "machine"; `by_loss` puts what loses most first.

    Several artifacts stand side by side, with the ratio to the first in the same round.
    """
    machine, artifacts = report["machine"], report["artifacts"]
    lines = [
        "# Layers in place",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; {report['date']}; {report['rounds']} rounds. Microseconds, "
        "medians and best. From the best: GMAC/s, which count the multiplications of a direct computation; their share "
        "of the peak; lost, the time above that of the same MACs at the peak. "
        f"Peak: {report['peak_gmacs']:.0f} GMAC/s a thread (median {report['median_peak_gmacs']:.0f}), `vpdpbusd` on "
        f"registers alone in the same rounds. Each layer's time includes about {report['callback_us']:.1f} us of "
        "callbacks: that is what a layer that copies one byte takes.",
        "",
    ]
    letters = [chr(ord("A") + number) for number in range(len(artifacts))]
    for letter, artifact in zip(letters, artifacts, strict=True):
        lines += [f"- **{letter}**, {_about(artifact)}"]
    return "\n".join([*lines, "", *_kinds(letters, artifacts), "", *_layers(letters, artifacts, by_loss)]) + "\n"


def _about(artifact: dict) -> str:
    return (
        f"{artifact['path']}: {artifact['model']}, {artifact['plan']}, batch {artifact['batch']}, "
        f"{artifact['threads']} thread(s), {artifact['residual']} residual. End to end {artifact['us']:.0f} us, best "
        f"{artifact['best_us']:.0f}; sum of layers {artifact['sum_us']:.0f}, best {artifact['sum_best_us']:.0f}; floor "
        f"{artifact['floor_us']:.0f}, all MACs at the peak."
    )


def _kinds(letters: list[str], artifacts: list[dict]) -> list[str]:
    tables = [{row["name"]: row for row in artifact["kinds"]} for artifact in artifacts]
    names = list(dict.fromkeys(name for table in tables for name in table))
    body = [[name, _one(tables, name, "layers"), *_numbers(tables, name)] for name in names]
    return _table(["kind", "layers", *_headers(letters)], body, text=1)


def _layers(letters: list[str], artifacts: list[dict], by_loss: bool) -> list[str]:
    tables = [{row["name"]: row for row in artifact["layers"]} for artifact in artifacts]
    names = list(dict.fromkeys(name for table in tables for name in table))
    if by_loss:
        names.sort(key=lambda name: -max(table[name]["lost_us"] for table in tables if name in table))
    facts = ("shape", "bits", "schedule")
    body = [[name, *(_one(tables, name, fact) for fact in facts), *_numbers(tables, name)] for name in names]
    for row, name in zip(body, names, strict=True):
        for table in tables[1:]:
            if name in tables[0] and name in table:
                row.append(f"{_ratio(table[name]['rounds_us'], tables[0][name]['rounds_us']):.2f}")
            else:
                row.append(MISSING)
    headers = ["layer", *facts, *_headers(letters), *(f"{letter}/{letters[0]}" for letter in letters[1:])]
    return _table(headers, body, text=4)


def _ratio(ours: list[float], baseline: list[float]) -> float:
    """How many times longer than the baseline: the median of the ratios of times in the same round."""
    return statistics.median(a / b for a, b in zip(ours, baseline, strict=True))


def _one(tables: list[dict], name: str, fact: str) -> str:
    """What the artifacts say of a row, once if they agree."""
    said = [str(table[name][fact] or MISSING) for table in tables if name in table]
    return " / ".join(dict.fromkeys(said))


def _shown(count: int) -> list[str]:
    return list(NUMBERS) if count == 1 else list(BESIDE)


def _headers(letters: list[str]) -> list[str]:
    shown = _shown(len(letters))
    return shown if len(letters) == 1 else [f"{letter} {header}" for letter in letters for header in shown]


def _numbers(tables: list[dict], name: str) -> list[str]:
    return [_number(table.get(name), NUMBERS[header]) for table in tables for header in _shown(len(tables))]


def _number(row: dict | None, template: str) -> str:
    if row is None or ("of_peak" in template or "gmacs" in template) and row["of_peak"] is None:
        return MISSING
    return template.format(**row)


def _table(headers: list[str], rows: list[list[str]], text: int) -> list[str]:
    """Markdown lines; the first `text` columns to the left."""
    rule = ["---" if column < text else "---:" for column in range(len(headers))]
    return ["| " + " | ".join(cells) + " |" for cells in [headers, rule, *rows]]
