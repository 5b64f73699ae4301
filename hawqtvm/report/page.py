"""The report as one HTML page that needs nothing else: charts as SVG, colours for light and dark."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from hawqtvm.files import write_atomic
from hawqtvm.report.compare import Row
from hawqtvm.report.formats import SENTENCES, by_change, sentence
from hawqtvm.report.history import Trend
from hawqtvm.report.matching import changes
from hawqtvm.report.report import Report, side_json

TEMPLATE = "page.html.j2"
TICKS = (1, 2, 2.5, 5, 10)
MARGIN = 0.08  # of a chart's height, above and below


@dataclass(frozen=True)
class Chart:
    """A trend in percent of the plot's width and height, from the top left.

    ``points``: (x, y, tooltip); ``line``, ``band``: SVG coordinates; ``ticks``: (y, text); ``marks``: (x, text) of its
    changes; ``first``, ``last``: what stands below the axis.
    """

    title: str
    points: list[tuple[float, float, str]]
    line: str
    band: str
    ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    first: str
    last: str


def write_page(report: Report, path: str | os.PathLike) -> None:
    write_atomic(path, page(report))


def page(report: Report) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hawqtvm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    comparison, shown = report.comparison, {}
    if comparison is not None:
        wholes = [row for row in comparison.rows if row.layer is None]
        shown = {
            "sentence": SENTENCES[comparison.verdict],
            "networks": [_network(whole, comparison.of(whole.network)[1]) for whole in wholes],
            "changes": changes(comparison.base, comparison.head),
            "sides": {"base": side_json(comparison.base), "head": side_json(comparison.head)},
        }
    devices = [
        (device, [chart(trend, report) for trend in trends if trend.layer is None])
        for device, trends in groupby(sorted(report.trends, key=lambda trend: trend.device), lambda trend: trend.device)
    ]
    return environment.get_template(TEMPLATE).render(
        report=report,
        comparison=comparison,
        devices=devices,
        dated=[sentence(found.as_json) for found in report.dated],
        **shown,
    )


def _network(whole: Row, layers: list[Row]) -> dict:
    """A network's rows, and its bars in percent of the longest."""
    longest = max((max(row.base_us, row.head_us) for row in layers), default=1.0)
    bars = [(row, 100 * row.base_us / longest, 100 * row.head_us / longest) for row in layers]
    return {"whole": whole, "layers": by_change(layers), "bars": bars}


def chart(trend: Trend, report: Report) -> Chart:
    points = trend.points
    least, most = min(point.low for point in points), max(point.high for point in points)
    ticks = list(_ticks(least, most))
    least, most = min(least, *ticks), max(most, *ticks)
    room = MARGIN * (most - least or most)
    least, most = least - room, most + room

    def x(index: int) -> float:
        return round(100 * (index + 0.5) / len(points), 3)

    def y(us: float) -> float:
        return round(100 * (most - us) / (most - least), 3)

    found = [dated.change for dated in report.dated if dated.trend is trend]
    edge = [(x(i), y(p.high)) for i, p in enumerate(points)] + [(x(i), y(p.low)) for i, p in enumerate(points)][::-1]
    return Chart(
        title=trend.network,
        points=[(x(i), y(p.us), _tooltip(p)) for i, p in enumerate(points)],
        line=_coordinates((x(i), y(p.us)) for i, p in enumerate(points)),
        band=_coordinates(edge),
        ticks=[(y(us), f"{us:g}") for us in ticks],
        marks=[(x(change.first), f"{change.kind}: {change.ratio:.3f}x") for change in found],
        first=_label(points[0]),
        last=_label(points[-1]) if len(points) > 1 else "",
    )


def _ticks(least: float, most: float) -> Iterator[float]:
    """A few round numbers from ``least`` to ``most``, or one where they are equal."""
    if most <= least:
        yield least
        return
    power = 10.0 ** math.floor(math.log10((most - least) / 4))
    step = next(power * tick for tick in TICKS if power * tick >= (most - least) / 4)
    number = -(-least // step)
    while number * step <= most:
        yield round(number * step, 6)
        number += 1


def _tooltip(point) -> str:
    return f"{_label(point)}: {point.us:.1f} us ({point.low:.1f} to {point.high:.1f})"


def _label(point) -> str:
    return f"{point.measured[:10]} {(point.commit or '')[:8]}".strip()


def _coordinates(points) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
