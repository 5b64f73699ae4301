"""A quantity is what its parts add up to; free layers, ties and fixed ones are kept apart."""

import pytest
from hypothesis import given, settings

from hawqtvm.allocate.problem import Problem, quantity
from hawqtvm.errors import BadInput
from tests.allocate.nets import plans, problems

LAYERS = {"a": {4: 1.0, 8: 3.0}, "b": {4: 10.0, 8: 30.0}, "c": {8: 100.0}}


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [(8, 8, 133.0), (4, 8, 131.0 + 0.5), (8, 4, 113.0 + 0.25), (4, 4, 111.0 - 7.0)],
)
def test_pairs_count_at_4_bits_and_edges_where_bits_change(a, b, value):
    known = quantity(LAYERS, pairs=[("a", "b", -7.0)], edges=[("a", "b", 0.5, 0.25)])
    assert known.at({"a": a, "b": b, "c": 8}) == pytest.approx(value)


def test_what_no_plan_changes_counts():
    assert quantity(LAYERS, 1000.0).at({"a": 8, "b": 8, "c": 8}) == 1133.0


@given(problems())
@settings(max_examples=50, deadline=None)
def test_a_reduced_quantity_has_the_same_values(problem):
    for known in problem.quantities.values():
        reduced = problem.reduced(known)
        assert set(reduced.linear) <= set(problem.groups)
        for bits in plans(problem):
            assert reduced.at(bits) == pytest.approx(known.at(bits), abs=1e-9)


def three(**fields) -> Problem:
    return Problem(**{"layers": ("a", "b", "c"), "tied": (("a", "b"),), "fixed": {"c": 8}, "quantities": {}} | fields)


def test_a_fixed_layer_fixes_those_tied_to_it():
    assert three().groups == {"a": ("a", "b")}
    assert three().fix({"b": 4}).fixed == {"a": 4, "b": 4, "c": 8}
    assert three().fix({"b": 4}).groups == {}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"d": 8}, "no layer 'd'"),
        ({"a": 5}, "layer a: bits must be 4 or 8, not 5"),
        ({"c": 4}, "layer c cannot be fixed at 4 bits: it stays at 8"),
        ({"a": 4, "b": 8}, "layer b cannot be fixed at 8 bits: it stays at 4 .a, b share their bits"),
    ],
)
def test_what_cannot_be_fixed(wanted, message):
    with pytest.raises(BadInput, match=message):
        three().fix(wanted)
