"""The kernel that makes codes of images, against numpy."""

import numpy as np
import pytest
import tvm
from tvm import relax

from hawqtvm.compile import add_input_quantizer
from hawqtvm.qnn import reference
from hawqtvm.qnn.model import Quantization
from relay_passes.executable import build
from schedules.target import CPU_TARGETS
from tests.needs import needs_level

QUANTIZATIONS = [(1 / 255, 0), (1 / 16, 0), (0.1, 128), (0.0173, 117), (3.0, 255), (1e-30, 7), (1e30, 1)]


@pytest.mark.parametrize("target", CPU_TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("scale", "zero_point"), QUANTIZATIONS)
def test_the_input_quantizer_equals_numpys(target, scale, zero_point):
    needs_level(target)
    dims = (2, 3, 64, 64)
    half = dims[0] * dims[1] * dims[2] * dims[3]
    generator = np.random.default_rng(0)
    codes = generator.integers(-10, 270, half).astype("float64") - zero_point
    halfway = np.float32((codes + 0.5) * scale)
    around = generator.choice([-np.inf, np.inf], half).astype("float32")
    extremes = np.float32([0.0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 1.2e-38, 2**23, 2**24 + 2])
    sets = [
        halfway,
        np.nextafter(halfway, around),
        np.float32(generator.standard_normal(half) * 100 * scale),
        generator.choice(extremes, half),
        generator.integers(0, 2**32, half, dtype="uint32").view("float32"),
    ]
    q = Quantization("uint8", scale, zero_point)
    vm = relax.VirtualMachine(build(add_input_quantizer(tvm.IRModule(), q, dims), target.tvm), tvm.cpu())
    for values in sets:
        images = values.reshape(dims)
        images[np.isnan(images)] = 0
        with np.errstate(over="ignore"):
            expected = reference.quantize_input(q, images)
        got = vm["quantize_input"](tvm.runtime.tensor(images)).numpy()
        np.testing.assert_array_equal(got, expected)
