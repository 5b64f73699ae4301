"""Every distinct kernel of ResNet-18 and ResNet-50 at batch 8 on a T4, in emulation, against int64.

Channels are the network's, and so are configs: those of the layers' full size.  Images are of two tiles of a block and
a part of a third, which many full-size layers do not have.
"""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import reference
from cases import code_limits, fill
from gpu import T4, Case, assert_exact
from tensor_core import stored_with_garbage

from hawqtvm.qnn.formats import Format
from hawqtvm.qnn.model import Arithmetic, QuantizedModel
from hawqtvm.quantize import quantize_source
from hawqtvm.sensitivity.groups import free_groups
from hawqtvm.source import Source
from hawqtvm.tune.layers import distinct_workloads
from relay_passes.context import Context
from schedules.cuda.conv2d_geometry import geometry
from schedules.dispatch import Choice, choose
from schedules.tuning_key import tuning_key
from schedules.workload import AvgPool2d, Conv2d, Dense, Elementwise, MaxPool2d, Reformat

MODELS, RESIDUALS, PLANS = ("resnet18", "resnet50"), ("int16", "uint8"), ("8", "4", "mixed", "mixed otherwise")
BATCH = 8
ACROSS = 5  # pixels of a row of a 1x1 layer's image: no tile has a multiple of it
POOLED = (13, 11)  # height and width for kernels without tiles
BIAS = 10_000

pytestmark = pytest.mark.slow


@cache
def model_of(name: str) -> QuantizedModel:
    return quantize_source(Source(name))[0]


@cache
def found(name: str, residual: str, plan: str) -> dict:
    """{tuning key: workload} of a network.

    Mixed plans give layers 4 and 8 bits by turns, those that share their bits alike: each layer's input and output then
    differ, and the other plan turns both around.
    """
    model, bits = model_of(name), int(plan) if plan.isdigit() else {}
    if not bits:
        turns = (4, 8) if plan == "mixed" else (8, 4)
        bits = {layer: turns[i % 2] for i, group in enumerate(free_groups(model.graph)) for layer in group}
    workloads = distinct_workloads(Context(Arithmetic(model, model.bits(bits), residual), BATCH, T4, 1))
    return {tuning_key(workload): workload for workload in workloads}


def on_few_tiles(choice: Choice):
    """The workload on a small image."""
    workload, config = choice.workload, choice.config
    if isinstance(workload, Conv2d):
        geo, (_, _, height, width) = geometry(workload), workload.out_dims
        if geo.y.size == 1:  # all pixels in one row
            sizes = 2 * config.width // ACROSS + 1, ACROSS
        else:
            tiles = (config.height, height), (config.width * geo.pixels, width)
            sizes = [min(2 * tile + (tile + 1) // 2, most) for tile, most in tiles]
        height, width = (size * stride for size, stride in zip(sizes, workload.strides, strict=True))
        return replace(workload, height=height, width=width)
    if isinstance(workload, (MaxPool2d, AvgPool2d, Elementwise)):
        n, c, *sizes = workload.dims
        return replace(workload, dims=(n, c, *map(min, sizes, POOLED)))
    return workload


def case(choice: Choice, workload, kind: str) -> Case:
    """The choice's kernel on ``workload``, which may be smaller than the choice's, with codes of this kind."""
    rng = np.random.default_rng(0)
    build = choice.schedule.build(choice.config, workload, T4)
    if isinstance(workload, (Conv2d, Dense)):
        inputs, wanted = layer(choice, workload, kind, rng)
    elif isinstance(workload, Elementwise):
        formats = [operand.format for operand in workload.operands]
        codes = [fill(rng, kind, *code_limits(format), workload.dims) for format in formats]
        inputs = [stored_with_garbage(q, format) for q, format in zip(codes, formats, strict=True)]
        wanted = [(workload.out, reference.elementwise(codes, workload))]
    else:
        codes = fill(rng, kind, *code_limits(workload.x), workload.dims)
        inputs, out = [stored_with_garbage(codes, workload.x)], getattr(workload, "out", workload.x)
        made = {MaxPool2d: reference.max_pool2d, AvgPool2d: reference.avg_pool2d, Reformat: lambda codes, _: codes}
        wanted = [(out, made[type(workload)](codes, workload))]
    return Case((kind, workload, choice.config), build, inputs, wanted)


def layer(choice: Choice, workload: Conv2d | Dense, kind: str, rng) -> tuple[list, list]:
    """Arguments of a layer's kernel, and its outputs; its factors spread the sums over its codes."""
    epilogue, half = workload.epilogue, 1 << (workload.weight_bits - 1)
    taps = (workload.in_channels, *getattr(workload, "kernel", ()))
    x = fill(rng, kind, *workload.x.limits, workload.x_dims)
    weight = fill(rng, kind, -half, half - 1, (workload.out_channels, *taps), other=True).astype("int8")
    bias = rng.integers(-BIAS, BIAS, workload.out_channels).astype("int32")
    convolution = isinstance(workload, Conv2d)
    sums = reference.conv2d(x, weight, bias, workload) if convolution else reference.dense(x, weight, bias)
    inputs, b, c, residual = [stored_with_garbage(x, workload.x)], None, None, None
    if epilogue:
        b = rng.integers(2**30, 2**31, workload.out_channels).astype("int32")
        even = 31 + round(np.log2(2 * sums.std() / (epilogue.hi - epilogue.lo)))
        c = (max(epilogue.min_shift, even) + rng.integers(0, 3, workload.out_channels)).astype("int32")
    inputs += choice.schedule.constants(choice.config, workload, weight, bias, b, c)
    if epilogue and epilogue.residual:
        residual = fill(rng, "random", *code_limits(epilogue.residual.format), workload.out_dims)
        inputs.append(stored_with_garbage(residual, epilogue.residual.format))
    made = reference.finish(sums, epilogue, b, c, residual)
    wanted = [(epilogue.out if epilogue else Format("int32", "HWNC"), made)]
    if epilogue and epilogue.codes:
        wanted.append((epilogue.codes.out, reference.requantize(made, epilogue.codes)))
    return inputs, wanted


@pytest.mark.parametrize(("name", "residual", "plan"), list(product(MODELS, RESIDUALS, PLANS)))
def test_kernels_on_few_tiles(name, residual, plan):
    """Those that no plan before this one has."""
    before = list(product(RESIDUALS, PLANS))
    known = {key for r, p in before[: before.index((residual, plan))] for key in found(name, r, p)}
    workloads = {key: workload for key, workload in found(name, residual, plan).items() if key not in known}
    assert workloads
    for workload in workloads.values():
        choice = choose(workload, T4, 1)
        for kind in ("random", "ends"):
            assert_exact(case(choice, on_few_tiles(choice), kind))


@pytest.mark.parametrize("plan", ["8", "4"])
def test_a_full_size_layer_of_each_kind(plan):
    kinds: dict = {}
    for workload in found("resnet50", "int16", plan).values():
        window = [getattr(workload, name, None) for name in ("kernel", "strides", "weight_bits")]
        kinds.setdefault((type(workload), *window), workload)
    for workload in kinds.values():
        choice = choose(workload, T4, 1)
        assert_exact(case(choice, choice.workload, "random"))
