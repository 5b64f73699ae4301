"""All that the outputs show, gathered once, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from hawqtvm.report.changes import Change, find_changes
from hawqtvm.report.compare import ALPHA, Comparison, Row
from hawqtvm.report.history import Trend
from hawqtvm.report.logs import Log
from hawqtvm.report.matching import changes
from hawqtvm.report.predicted import Prediction
from hawqtvm.report.run import Run

KIND, VERSION = "hawqtvm-comparison", 1


@dataclass(frozen=True)
class Dated:
    """A change of a trend, with the run after it."""

    trend: Trend
    change: Change

    @property
    def as_json(self) -> dict:
        first = self.trend.points[self.change.first]
        return {
            "device": self.trend.device,
            "network": self.trend.network,
            "layer": self.trend.layer,
            "kind": self.change.kind,
            "ratio": self.change.ratio,
            "measured": first.measured,
            "commit": first.commit,
        }


@dataclass(frozen=True)
class Report:
    """``comparison``: None where only a history is shown."""

    comparison: Comparison | None = None
    trends: Sequence[Trend] = ()
    dated: Sequence[Dated] = ()
    predictions: Sequence[Prediction] = ()
    logs: Sequence[Log] = ()


def dated_changes(trends: Sequence[Trend], network: float, layer: float) -> list[Dated]:
    """The steps and drifts of all trends by more than the factors."""
    return [
        Dated(trend, change)
        for trend in trends
        for change in find_changes([point.us for point in trend.points], network if trend.layer is None else layer)
    ]


def as_json(report: Report) -> dict:
    """The versioned object of ``--json``; the field's meanings are in hawqtvm/report/README.md."""
    shown = {"format": KIND, "version": VERSION}
    if report.comparison is not None:
        shown |= _comparison_json(report.comparison)
    return shown | {
        "history": [dated.as_json for dated in report.dated],
        "predictions": [asdict(prediction) for prediction in report.predictions],
        "tuning_logs": [asdict(log) for log in report.logs],
    }


def _comparison_json(comparison: Comparison) -> dict:
    networks = []
    for row in (row for row in comparison.rows if row.layer is None):
        whole, layers = comparison.of(row.network)
        networks.append({"name": whole.network, **_row_json(whole)} | {"layers": [_layer_json(row) for row in layers]})
    return {
        "verdict": comparison.verdict,
        "interleaved": comparison.interleaved,
        "remeasured": comparison.remeasured,
        "alpha": ALPHA,
        "factors": asdict(comparison.factors),
        "base": side_json(comparison.base),
        "head": side_json(comparison.head),
        "networks": networks,
        "changes": changes(comparison.base, comparison.head),
    }


def side_json(run: Run) -> dict:
    """Where, when and under which load a run was measured."""
    return {
        "commit": run.commit,
        "measured": run.measured,
        "device": asdict(run.device),
        "versions": asdict(run.versions),
        "rounds": len(run.load),
        "others_cpus": float(np.median([load.others for load in run.load])),
        "stolen_cpus": float(np.median([load.stolen for load in run.load])),
        "yardstick_us": float(np.median([us for load in run.load for us in load.yardstick_us])),
    }


def _layer_json(row: Row) -> dict:
    return {"name": row.layer, **_row_json(row)}


def _row_json(row: Row) -> dict:
    kept = {name: getattr(row, name) for name in ("verdict", "reason", "base_us", "head_us")}
    return kept | asdict(row.shift) | {"p": row.p}
