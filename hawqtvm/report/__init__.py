"""Stage: measures deployed artifacts and says whether a network, or a layer, got slower.

``compare(*measure_pairs(base, head))``; the statistics and the files are described in hawqtvm/report/README.md.
"""

from hawqtvm.report.compare import Comparison, Factors, compare
from hawqtvm.report.measure import measure, measure_pairs
from hawqtvm.report.run import read_run, write_run

__all__ = ["Comparison", "Factors", "compare", "measure", "measure_pairs", "read_run", "write_run"]
