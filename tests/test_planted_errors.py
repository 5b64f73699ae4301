"""A library that differs from PyTorch by the least is found, and where it differs is named."""

from dataclasses import replace

import numpy as np
import pytest

import hawqtvm.verify
from hawqtvm.deploy import deploy
from hawqtvm.errors import CheckFailed
from hawqtvm.qnn import reference
from hawqtvm.qnn.model import Arithmetic
from hawqtvm.verify import verify
from schedules import dispatch

QUICK = {"threads": 1, "measure": False}


def plant_a_wrong_weight(monkeypatch, shape, channel):
    """From now on, kernels get the first weight of one output channel off by one, in the layer of this shape."""

    def wrong(constants):
        def planted(config, workload, weight, *rest):
            if weight.shape == shape:
                weight = weight.copy()
                off_by_one(weight, channel)
            return constants(config, workload, weight, *rest)

        return planted

    for schedule in (*dispatch.SCHEDULES, dispatch.portable):
        if hasattr(schedule, "constants"):
            monkeypatch.setattr(schedule, "constants", wrong(schedule.constants))


def off_by_one(weight, channel):
    first = weight[channel].reshape(-1)
    first[0] += -1 if first[0] > 0 else 1


@pytest.mark.parametrize("target", ["native", "x86-64"])
@pytest.mark.parametrize("bits", [4, 8])
def test_one_weight_off_by_one_is_found_and_named(vgg, tmp_path, monkeypatch, target, bits):
    name, channel, batch = "features.3", 5, 5
    plant_a_wrong_weight(monkeypatch, vgg.layers[name].weight.shape, channel)
    plan = {name: bits}
    deploy(vgg, plan, batch, tmp_path / "a", target=target, verify=False, **QUICK)
    with pytest.raises(CheckFailed) as failure:
        verify(tmp_path / "a")
    message = str(failure.value)

    right = Arithmetic(vgg, vgg.bits(plan))
    layer = vgg.layers[name]
    codes = {**layer.codes, bits: layer.codes[bits].copy()}
    off_by_one(codes[bits], channel)
    planted = Arithmetic(replace(vgg, layers={**vgg.layers, name: replace(layer, codes=codes)}), vgg.bits(plan))
    # the folded bias is the right one's: only the weight was changed
    wrong_bias = planted.parameters(vgg.graph.step(name)).bias - right.parameters(vgg.graph.step(name)).bias
    assert not wrong_bias.any()
    (images,) = hawqtvm.verify.inputs(vgg.samples, (batch, *vgg.graph.input_dims))
    good = dict(reference.run_integer(right, images))[name]
    bad = dict(reference.run_integer(planted, images))[name]
    image, found, y, x = np.argwhere(good != bad)[0]
    assert found == channel
    count = f"{(good != bad).sum()} of {good.size} codes"
    assert f"layer {name} is the first that differs ({count})" in message
    where = f"image {image}, channel {channel}, at ({y}, {x})"
    values = f"the library has {bad[image, channel, y, x]}, PyTorch has {good[image, channel, y, x]}"
    assert f"{where}: {values}" in message
    assert [row.wrong for row in failure.value.rows if row.layer == "features.0"] == [0]


def test_a_wrong_last_conversion_is_found(nets, tmp_path, monkeypatch):
    """The logits are compared as they leave, not as the last layer made them."""
    compare = hawqtvm.verify.compare

    def shuffled(model, arithmetic, codes):
        trace = model.trace

        def swapped(codes):
            stored = trace(codes)
            last = list(stored)[-1]
            assert stored[last].shape[1] == 6  # not in blocks of 16
            return stored | {last: stored[last][:, ::-1]}

        monkeypatch.setattr(model, "trace", swapped)
        return compare(model, arithmetic, codes)

    monkeypatch.setattr(hawqtvm.verify, "compare", shuffled)
    with pytest.raises(CheckFailed, match="layer classifier.6.NCHW is the first that differs"):
        deploy(nets("vgg"), 8, 1, tmp_path / "a", target="x86-64", **QUICK)
