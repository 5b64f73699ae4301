"""HAWQ-V3's nine published ResNet-18 settings, from its published table."""

import json
from pathlib import Path

import pytest

from hawqtvm.allocate import allocate
from hawqtvm.allocate.inputs import table_problem

TABLE = Path(__file__).with_name("hawqv3_resnet18.json")
PUBLISHED = json.loads(TABLE.read_text())["published_4_bits"]


@pytest.fixture(scope="module")
def problem():
    return table_problem(TABLE)


@pytest.mark.parametrize("setting", PUBLISHED)
def test_a_published_setting_comes_out(problem, setting):
    limited, fraction = setting.split("_")
    found = allocate(problem, **{limited: float(fraction)})
    assert [name for name, bits in found.bits.items() if bits == 4] == PUBLISHED[setting]
    assert found.gap == 0


def test_all_nine_are_there():
    assert len(PUBLISHED) == 9


def test_sizes_bops_and_latencies_are_those_of_the_table(problem):
    """Against the sums of the table's columns, in its own units."""
    rows = json.loads(TABLE.read_text())["layers"]
    for bits in (4, 8):
        uniform, known = problem.uniform(bits), problem.quantities
        assert known["size"].at(uniform) == pytest.approx(sum(r["parameters"] for r in rows) * 2**20 * bits / 8)
        assert known["bops"].at(uniform) == pytest.approx(sum(r["macs"] for r in rows) * 1e6 * bits * bits)
        assert known["latency"].at(uniform) == pytest.approx(sum(r["latency_ms"][str(bits)] for r in rows) * 1e3)


def test_an_absolute_limit_and_its_fraction_are_one(problem):
    least, most = (problem.quantities["latency"].at(problem.uniform(bits)) for bits in (4, 8))
    half = allocate(problem, latency=0.5)
    assert half.limits["latency"] == pytest.approx((least + most) / 2)
    assert allocate(problem, latency=f"{(least + most) / 2e3}ms").bits == half.bits
    assert allocate(problem, latency=f"{(least + most) / 2}us").bits == half.bits
