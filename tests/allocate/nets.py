"""Random problems, and all of their plans tried one by one."""

from itertools import product

import numpy as np
from hypothesis import strategies as st

from hawqtvm.allocate.problem import Problem, quantity


@st.composite
def problems(draw, most: int = 8) -> Problem:
    """Up to ``most`` layers, some tied, some fixed, extra losses of pairs (of either sign) and repacks on edges."""
    count, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    names = [f"layer{i}" for i in range(count)]
    kind = draw(st.sampled_from(["real", "whole"]))  # whole numbers make many equal plans

    def values() -> dict[str, dict[int, float]]:
        low, high = (rng.random(count) + 0.1 if kind == "real" else rng.integers(0, 6, count) for _ in range(2))
        return {a: {4: float(x), 8: float(y)} for a, x, y in zip(names, low, high, strict=True)}

    def couples(number: int) -> list[tuple[str, str]]:
        return [tuple(sorted(rng.choice(names, 2, False))) for _ in range(number if count > 1 else 0)]

    pairs = [(a, b, float(rng.normal())) for a, b in couples(draw(st.integers(0, 5)))]
    edges = [(a, b, *map(float, rng.random(2))) for a, b in couples(draw(st.integers(0, 5)))]
    tied = (tuple(names[1:3]),) if count > 3 and draw(st.booleans()) else ()
    quantities = {
        "sensitivity": quantity(values(), pairs=pairs),
        "size": quantity(values()),
        "bops": quantity(values()),
        "latency": quantity(values(), float(rng.random()), edges=edges),
    }
    fixed = {names[0]: 8} if count > 1 and draw(st.booleans()) else {}
    return Problem(tuple(names), tied, fixed, quantities)


def plans(problem: Problem) -> list[dict[str, int]]:
    """Every plan that keeps the fixed layers and gives tied ones the same."""
    found = (dict(zip(problem.layers, bits, strict=True)) for bits in product((4, 8), repeat=len(problem.layers)))
    return [
        bits
        for bits in found
        if all(bits[a] == b for a, b in problem.fixed.items())
        and all(len({bits[a] for a in group}) == 1 for group in problem.tied)
    ]


def table_of(problem: Problem) -> tuple[list[dict[str, int]], dict[str, np.ndarray]]:
    """Every plan, and of every quantity each plan's value."""
    every = plans(problem)
    return every, {name: np.array([q.at(bits) for bits in every]) for name, q in problem.quantities.items()}
