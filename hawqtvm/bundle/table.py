"""A bundle's results as a table."""

from collections.abc import Sequence

from hawqtvm.bundle.results import Result
from hawqtvm.console import table
from hawqtvm.static_report.kernel import shape

HEADERS = ["device", "workload", "schedule", "default us", "us", "tried", "failed", "note"]


def show(results: Sequence[Result]) -> str:
    return table(HEADERS, [_cells(result) for result in results])


def _cells(result: Result) -> list[str]:
    def us(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    times = us(result.default_us), us(result.us)
    counts = str(result.tried), str(result.failed)
    return [result.device, shape(result.workload), result.schedule, *times, *counts, result.note or "-"]
