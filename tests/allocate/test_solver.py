"""The integer program against every plan tried one by one; limits that none meets; what CBC leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hawqtvm.allocate import allocate, solve, solver
from hawqtvm.allocate.problem import LIMITED, Problem, quantity
from hawqtvm.allocate.solver import minimize
from hawqtvm.errors import BadInput, CheckFailed
from tests.allocate.nets import problems, table_of

CLOSE = 1e-5


def between(values: np.ndarray, fraction: float) -> float:
    """A value that no plan has, so that a limit of it is met or not whatever the rounding."""
    distinct = np.unique(values.round(9))
    at = int(fraction * (len(distinct) - 1))
    return float(distinct[at] + distinct[min(at + 1, len(distinct) - 1)]) / 2 + (at + 1 == len(distinct))


def agrees(problem, limited, fractions):
    every, values = table_of(problem)
    limits = {name: between(values[name], fraction) for name, fraction in zip(limited, fractions, strict=False)}
    for name, limit in limits.items():
        assume(np.abs(values[name] - limit).min() > CLOSE)
    met = np.all([values[name] <= limit for name, limit in limits.items()], axis=0)
    if not met.any():
        with pytest.raises(BadInput, match="no plan meets --"):
            solve(problem, limits)
        return
    found = solve(problem, limits)
    assert found.bits in every and all(found.predicted[name] <= limit for name, limit in limits.items())
    least = values["sensitivity"][met].min()
    assert found.predicted["sensitivity"] == pytest.approx(least, abs=CLOSE) and found.gap == 0
    ties = [
        [bits[a] for a in problem.layers]
        for bits, ok, value in zip(every, met, values["sensitivity"], strict=True)
        if ok and value < least + 1e-9
    ]
    assert list(found.bits.values()).count(4) <= min(bits.count(4) for bits in ties)


@given(problems(), st.permutations(LIMITED), st.lists(st.floats(0, 1), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_the_program_agrees_with_trying_every_plan(problem, limited, fractions):
    agrees(problem, limited, fractions)


@pytest.mark.slow
@given(problems(most=14), st.permutations(LIMITED), st.lists(st.floats(0, 1), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_the_program_agrees_with_trying_every_plan_of_14_layers(problem, limited, fractions):
    agrees(problem, limited, fractions)


def chain(count: int, **fields) -> Problem:
    """Layers l0, l1, ... that all cost 8 at 8 bits and 4 at 4, and lose 1 at 4."""
    names = [f"l{i}" for i in range(count)]
    cost = quantity({a: {4: 4.0, 8: 8.0} for a in names})
    loss = quantity({a: {4: 1.0, 8: 0.0} for a in names})
    return Problem(
        **{"layers": tuple(names), "tied": (), "fixed": {}, "quantities": {"sensitivity": loss, "size": cost}} | fields
    )


def test_of_equal_plans_the_latest_layers_take_4_bits():
    assert list(allocate(chain(6), size="36B").bits.values()) == [8, 8, 8, 4, 4, 4]


def test_a_layer_that_loses_and_gains_nothing_stays_at_8():
    free = quantity({"l0": {4: 0.0, 8: 0.0}, "l1": {4: 1.0, 8: 0.0}})
    problem = chain(2)
    known = {"sensitivity": free, "size": quantity({"l0": {4: 1.0, 8: 1.0}, "l1": {4: 1.0, 8: 2.0}})}
    found = allocate(Problem(problem.layers, (), {}, known), size="2B")
    assert found.bits == {"l0": 8, "l1": 4}


def test_a_limit_that_a_plan_just_reaches_is_met():
    assert list(allocate(chain(5), size="36B").bits.values()).count(4) == 1


def test_one_limit_that_no_plan_meets_is_named_with_the_nearest():
    with pytest.raises(BadInput, match="no plan meets --size 1.9e-05MB; .*--size 2e-05MB$"):
        allocate(chain(5), size="19B")
    allocate(chain(5), size="2e-05MB")


def test_limits_that_exclude_each_other_are_named_with_what_each_could_be():
    names = ["l0", "l1"]
    up = quantity({a: {4: 5e6, 8: 1e6} for a in names})
    down = quantity({a: {4: 1e3, 8: 5e3} for a in names})
    loss = quantity({a: {4: 1.0, 8: 0.0} for a in names})
    problem = Problem(tuple(names), (), {}, {"sensitivity": loss, "size": up, "latency": down})
    with pytest.raises(BadInput) as caught:
        allocate(problem, size="3MB", latency="7ms")
    message = str(caught.value)
    assert "--size 3MB, --latency 7ms together" in message and "--size 6MB or --latency 10ms" in message
    allocate(problem, size="6MB", latency="7ms")
    allocate(problem, size="3MB", latency="10ms")


def test_with_every_layer_fixed_there_is_one_plan():
    fixed = dict.fromkeys(("l0", "l1"), 8)
    assert allocate(chain(2, fixed=fixed), size="16B").bits == fixed
    with pytest.raises(BadInput, match="no plan meets"):
        allocate(chain(2, fixed=fixed), size="15B")


def hard(count: int) -> Problem:
    """Every pair of layers interacts: far more than CBC proves in a second."""
    rng = np.random.default_rng(0)
    names = [f"l{i}" for i in range(count)]
    pairs = [(a, b, float(rng.normal())) for i, a in enumerate(names) for b in names[i + 1 :]]
    return Problem(tuple(names), (), {}, {"sensitivity": quantity({a: {4: 1.0, 8: 0.0} for a in names}, pairs=pairs)})


def test_what_is_not_proved_says_how_far_off_it_may_be():
    problem = hard(60)
    found = minimize(problem, problem.quantities["sensitivity"], (), 2.0)
    assert found.gap > 0
    relaxed = sum(min(v, 0) for v in problem.quantities["sensitivity"].products.values())
    assert found.gap <= problem.quantities["sensitivity"].at(found.bits) - relaxed


def test_no_plan_in_time_says_so():
    problem = hard(60)
    with pytest.raises(CheckFailed, match="no plan within 0.01 s; .*--seconds"):
        minimize(problem, problem.quantities["sensitivity"], (), 0.01)


def test_a_row_that_hardly_fails_is_not_taken_for_met():
    problem = chain(2)
    size = problem.quantities["size"]
    low = minimize(problem, problem.quantities["sensitivity"], [(size, 16 - 4 * solver.EQUAL * size.span)])
    assert sorted(low.bits.values()) == [4, 8]


SOLVE = """
import sys
from hawqtvm.console import command
from tests.allocate.test_solver import hard
from hawqtvm.allocate.solver import minimize
problem = hard(60)
def main(_):
    print("started", flush=True)
    minimize(problem, problem.quantities["sensitivity"], (), 100.0)
command(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cbc_and_leaves_no_file(tmp_path, number):
    root = Path(__file__).parents[2]
    environment = dict(os.environ, PYTHONPATH=str(root), TMPDIR=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", SOLVE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()
        while not (solvers := children(process.pid)):
            time.sleep(0.05)
            assert process.poll() is None
        assert threads(solvers[0]) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in errors
    assert not runs(solvers[0])
    assert list(tmp_path.iterdir()) == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def runs(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be forgotten."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
