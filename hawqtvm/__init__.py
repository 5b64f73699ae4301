"""hawqtvm: integer-only mixed INT4/INT8 compilation of CNNs with Apache TVM."""

__version__ = "0.1.0"
