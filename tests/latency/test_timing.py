"""Times of rounds on a machine that changes its pace."""

import numpy as np
import pytest

from hawqtvm.latency.timing import Times


def times(pace, overhead: float = 0.0) -> Times:
    kernels = [{"a": 30.0, "b": 10.0}, {"a": 20.0, "b": 10.0}, {"a": 5.0}]
    return Times(
        calls=[[p * (sum(k.values()) + overhead * len(k)) for p in pace] for k in kernels],
        kernels=[{name: [p * us for p in pace] for name, us in k.items()} for k in kernels],
        references=2,
    )


def test_a_slower_round_counts_as_any_other():
    steady, changing = times([1.0] * 9), times([1, 1.6, 1, 1.3, 1, 1.6, 1, 1, 1])
    for index in range(3):
        assert changing.call(index) == pytest.approx(steady.call(index))
        assert changing.layers(index) == pytest.approx(steady.layers(index))


@pytest.mark.parametrize("overhead", [-2.0, 0.0, 3.0])
def test_kernels_add_up_to_the_call_with_a_like_share_of_overhead(overhead):
    found = times([1.0] * 4, overhead)
    for index in range(3):
        assert sum(found.layers(index).values()) == pytest.approx(found.call(index))
    assert found.layers(0) == pytest.approx({"a": 30 + overhead, "b": 10 + overhead})


def test_one_disturbed_program_of_a_round_is_an_outlier():
    found = times([1.0] * 9)
    found.calls[2][4] *= 3
    found.kernels[2]["a"][4] *= 3
    assert found.call(2) == pytest.approx(5.0) and found.layers(2)["a"] == pytest.approx(5.0)
    assert np.allclose(found.pace, 1)
