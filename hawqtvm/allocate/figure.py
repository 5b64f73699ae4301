"""Pictures of plans: figure I.1 of HAWQ-V3's appendix, and a frontier; each as PNG and as SVG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hawqtvm.allocate import Allocation
from hawqtvm.allocate.limits import in_unit, shown
from hawqtvm.allocate.problem import SENSITIVITY
from hawqtvm.errors import BadInput
from hawqtvm.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"png": {}, "svg": {"Date": None}}  # and their metadata: the same plans make the same file
COLOURS = {4: "#d95f02", 8: "#9ecae1"}
LINE = "#3b4a6b"
UNIT = {"size": "MB", "bops": "G bit operations an image", "latency": "ms"}
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "hawqtvm"}


def layers_figure(allocations: Mapping[str, Allocation]) -> "Figure":
    """Figure I.1: each layer's bits under several limits, what 4 bits instead of 8 add in sensitivity, their speed-up.

    ``allocations``: {what a limit is called: its plan}, all of one problem.  Raises BadInput without latencies.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    problem = next(iter(allocations.values())).problem
    if "latency" not in problem.quantities:
        raise BadInput("--figure shows speed-ups: give --latency-profile FILE, or a table with latency_ms")
    layers, at = problem.layers, np.arange(len(problem.layers))
    risk, latency = (
        {b: np.array([problem.quantities[name].layers[a].get(b, np.nan) for a in layers]) for b in (4, 8)}
        for name in (SENSITIVITY, "latency")
    )
    added, saved = risk[4] - risk[8], (latency[8] - latency[4]) / 1e3
    with rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 1.6 + 0.26 * len(layers)), 6.6), layout="constrained")
        bits, cost, speed = figure.subplots(3, 1, sharex=True, height_ratios=[0.32 * len(allocations) + 0.3, 1.7, 1.7])
        for row, allocation in enumerate(allocations.values()):
            for i, a in enumerate(layers):
                value = allocation.bits[a]
                bits.add_patch(_cell(i, row, COLOURS[value]))
                bits.text(i, row, str(value), ha="center", va="center", fontsize=8)
        bits.set_ylim(len(allocations) - 0.5, -0.5)
        bits.set_yticks(range(len(allocations)), list(allocations))
        bits.spines[:].set_visible(False)
        bits.tick_params(length=0)
        bits.set_title("Bits of each layer, by latency limit", loc="left")
        patches = [Patch(color=COLOURS[value], label=f"{value} bits") for value in (4, 8)]
        bits.legend(handles=patches, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
        cost.bar(at, added, color=LINE, width=0.7)
        cost.set_title("Sensitivity that 4 bits add to 8", loc="left")
        cost.set_ylabel("expected loss increase")
        if np.nanmin(added) > 0:
            cost.set_yscale("log")
            cost.set_ylim(bottom=np.nanmin(added) / 2)
        bars = speed.bar(at, saved, color=LINE, width=0.7, label="saved (left)")
        speed.axhline(0, color="black", linewidth=0.8)
        speed.set_title("Speed-up from 8 to 4 bits", loc="left")
        speed.set_ylabel("saved a call (ms)")
        ratio = speed.twinx()
        (dots,) = ratio.plot(at, latency[8] / latency[4], "D", color=COLOURS[4], markersize=4, label="ratio (right)")
        ratio.spines["right"].set_visible(True)
        ratio.set_ylim(0, 1.15 * np.nanmax(latency[8] / latency[4]))
        speed.margins(y=0.15)
        ratio.set_ylabel("time at 8 bits / at 4")
        speed.legend(
            handles=[bars, dots], ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, columnspacing=1
        )
        speed.set_xticks(at, layers, rotation=90)
        speed.set_xlim(-0.6, len(layers) - 0.4)
        speed.set_xlabel("layer")
    return figure


def frontier_figure(points: Sequence[Allocation], over: str) -> "Figure":
    """Sensitivity against size, BOPS or latency, a dot a plan."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        x = [in_unit(over, point.predicted[over]) for point in points]
        axes.step(x, [point.predicted[SENSITIVITY] for point in points], where="pre", color=LINE, linewidth=0.8)
        axes.plot(x, [point.predicted[SENSITIVITY] for point in points], ".", color=LINE)
        axes.set_xlabel(f"{over} ({UNIT[over]})")
        axes.set_ylabel("sensitivity (expected loss increase)")
        held = ", ".join(f"{name} up to {shown(name, limit)}" for name, limit in points[0].limits.items())
        axes.set_title(f"Least sensitivity by {over}" + (f", {held}" if held else ""), loc="left")
        axes.grid(alpha=0.3)
    return figure


def write_figure(figure: "Figure", path: str | Path) -> list[Path]:
    """Writes ``path`` with the endings .png and .svg; BadInput for another ending, or where it cannot be written."""
    from matplotlib import rc_context

    written = []
    for target in figure_paths(path):
        content = io.BytesIO()
        with rc_context(STYLE):
            kind = target.suffix[1:]
            figure.savefig(content, format=kind, dpi=150, metadata=FORMATS[kind])
        write_atomic(target, content.getvalue())
        written.append(target)
    return written


def figure_paths(path: str | Path) -> list[Path]:
    """Where :func:`write_figure` writes."""
    path = Path(path)
    if path.suffix.lower() not in ("", *(f".{kind}" for kind in FORMATS)):
        raise BadInput(f"{path}: a figure is written as {' and '.join(FORMATS)}; give a name with one of them, or none")
    return [path.with_suffix(f".{kind}") for kind in FORMATS]


def _cell(column: int, row: int, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.45, row - 0.42), 0.9, 0.84, color=colour, linewidth=0)
