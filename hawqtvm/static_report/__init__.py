"""What a network's GPU kernels are as machine code, and the least time they can take: computed, nothing is measured.

``report(networks, target)`` compiles every distinct kernel with nvcc and reads ptxas's messages and the SASS; neither
needs a GPU.  ``python -m hawqtvm.static_report`` writes JSON and markdown.
"""

from hawqtvm.static_report.report import report

__all__ = ["report"]
