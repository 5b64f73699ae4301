"""Workloads of every kind, and records made up of them."""

from dataclasses import asdict, replace

from hawqtvm.qnn.formats import Format
from schedules.cpu import conv2d_direct
from schedules.dispatch import options
from schedules.target import find_target
from schedules.tuning_key import tuning_key
from schedules.tuning_log import Device, Record
from schedules.workload import (
    AvgPool2d,
    Concat,
    Conv2d,
    Dense,
    Elementwise,
    Epilogue,
    MaxPool2d,
    Reformat,
    Requantized,
    Rescaled,
)

VNNI, AVX2 = find_target("avx512-vnni"), find_target("avx2")
HERE, THERE = Device("Here 1.0", 2), Device("There", 8)
BLOCKED = "NCHW16c"
X, WIDE = Format("uint8", BLOCKED), Format("int16", BLOCKED)
PACKED = Format("uint4", BLOCKED, packed=True)
DIMS = (1, 32, 6, 6)
RESIDUAL = Rescaled(WIDE, 7, 2**30 + 5, 31)
EPILOGUE = Epilogue(WIDE, 0, 0, 2**15 - 1, 34, RESIDUAL)
CONV = Conv2d(1, 32, 6, 6, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, X, 0, 8, EPILOGUE, 2)
DENSE = Dense(1, 32, 10, X, 8, replace(EPILOGUE, out=X, hi=255, residual=None))
WORKLOADS = (
    CONV,
    replace(CONV, x=PACKED, weight_bits=4, epilogue=replace(EPILOGUE, out=PACKED, hi=15)),
    replace(CONV, epilogue=None),
    replace(CONV, epilogue=replace(EPILOGUE, codes=Requantized(Rescaled(WIDE, 7, 2**30, 43), PACKED, 3, 0, 15))),
    replace(CONV, groups=2),
    DENSE,
    Elementwise(DIMS, (RESIDUAL, Rescaled(X, 3, 2**30, 40)), X, 2, 0, 255),
    MaxPool2d(DIMS, X, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    AvgPool2d(DIMS, X, 4, (6, 6), (1, 1), (0, 0, 0, 0), 2**30, 36, X, 0, 0, 255),
    Concat((DIMS, DIMS), X, X),
    Reformat(DIMS, Format("uint8"), X),
)


def record(workload=CONV, us=100.0, rounds=3, **fields) -> Record:
    """A record of the first option's config, of ``rounds`` rounds of ``us``."""
    option = options(workload, VNNI, 1)[0]
    made = {
        "device": HERE,
        "target": VNNI.name,
        "threads": 1,
        "workload": tuning_key(option.workload),
        "schedule": option.name,
        "config": asdict(option.config),
        "rounds": ((us, us + 1.5),) * rounds,
        "error": None,
        "measured": "2026-01-01T00:00:00.000+00:00",
        "tvm": "0",
    }
    return Record(**made | fields)


def configs(workload=CONV) -> list[dict]:
    """Different legal configs of the direct convolution, its default first."""
    option = options(workload, VNNI, 1)[0]
    assert option.schedule is conv2d_direct
    space = option.schedule.space(option.workload, VNNI, 1)
    return [asdict(config) for config in dict.fromkeys([option.config, *space])]
