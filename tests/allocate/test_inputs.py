"""What is read of a model, measured files and tables, and what is refused, with the file and the place named."""

import copy
import json
import math

import pytest

from hawqtvm.allocate import allocate
from hawqtvm.allocate.inputs import measured_problem, table_problem
from hawqtvm.allocate.limits import absolute
from hawqtvm.errors import BadInput
from tests.nets import quantized_net

SHA = "ab" * 32


@pytest.fixture(scope="module")
def net():
    return quantized_net("residual")


@pytest.fixture
def measured(net, tmp_path):
    """Function: writes both files, changed as told, and reads the problem."""
    names, fixed = [step.name for step in net.graph.layers], net.graph.fixed()
    head = {"version": 1, "model": net.name, "checkpoint": SHA}
    sensitivity = head | {
        "method": "fisher",
        "labels": False,
        "layers": {a: {"4": 1.0 + i, "8": 0.5} for i, a in enumerate(names) if a not in fixed},
        "pairs": [{"layers": ["same.conv1", "same.conv2"], "value": -0.25}],
    }
    latency = head | {
        "device": "a-cpu-2-cores",
        "target": "avx2",
        "threads": 2,
        "batch": 8,
        "residual": "int16",
        "activations": "bytes",
        "tuning_log": "cd" * 32,
        "layers": {a: {"8": 20.0} if a in fixed else {"4": 12.0, "8": 20.0} for a in names},
        "other_us": 7.0,
        "edges": [
            {"from": "same.conv1", "to": "same.conv2", "us": {"4-8": 3.0, "8-4": 2.0}},
            {"from": "stem.0", "to": "same.conv1", "us": {"8-4": 1.0}},
        ],
    }

    def write(change=None):
        files = {"sensitivity": copy.deepcopy(sensitivity), "latency": copy.deepcopy(latency)}
        if change:
            change(files)
        paths = {name: tmp_path / f"{name}.json" for name in files}
        for name, path in paths.items():
            path.write_text(json.dumps(files[name]))
        return measured_problem(net, SHA, paths["sensitivity"], paths["latency"])

    return write


def test_a_model_gives_its_graph_sizes_and_macs(net, measured):
    problem = measured()
    assert list(problem.layers) == [step.name for step in net.graph.layers]
    assert ("down.conv1", "down.downsample.0") in [tuple(sorted(group)) for group in problem.tied]
    assert problem.fixed == dict.fromkeys(net.graph.fixed(), 8) and "fc" in problem.fixed
    # 10x10 positions of 16 channels, of 3x3 taps of 16 channels
    assert problem.quantities["bops"].layers["same.conv1"] == {4: 16.0 * 230400, 8: 64.0 * 230400}
    assert problem.quantities["size"].layers["same.conv1"] == {4: 1152.0, 8: 2304.0}


def test_pairs_edges_and_the_rest_count(net, measured):
    problem = measured()
    only = problem.uniform(8) | {"same.conv1": 4}
    both = only | {"same.conv2": 4}
    count = len(problem.layers)
    latency, sensitivity = problem.quantities["latency"], problem.quantities["sensitivity"]
    assert latency.at(problem.uniform(8)) == pytest.approx(7 + 20 * count)
    assert latency.at(only) == pytest.approx(7 + 20 * count - 8 + 3 + 1)
    assert latency.at(both) == pytest.approx(7 + 20 * count - 16 + 1)
    added = sensitivity.at(both) - sensitivity.at(problem.uniform(8))
    ends = [problem.layers.index(a) for a in ("same.conv1", "same.conv2")]
    assert added == pytest.approx(sum(0.5 + i for i in ends) - 0.25)


def test_a_plan_says_where_it_comes_from(net, measured):
    plan = allocate(measured(), latency=0.5, size="1MB").plan("mixed")
    made = plan.provenance
    assert (plan.model, plan.checkpoint) == (net.name, SHA) and set(plan.bits) == set(net.layers)
    assert made["device"] == "a-cpu-2-cores" and made["tuning_log"] == "cd" * 32 and made["batch"] == 8
    assert made["sensitivity_method"] == "fisher" and made["optimal"] is True and made["driver"] is None
    assert set(made["predicted"]) == {"sensitivity", "size_mb", "bops_g", "latency_ms"}
    assert set(made["limits"]) == {"size_mb", "latency_ms"}
    assert net.bits(plan.bits) == plan.bits


def put(file, *keys):
    """A change: the value at the keys of a file; ``...`` takes it away."""
    *path, last, value = keys

    def change(files):
        at = files[file]
        for key in path:
            at = at[key]
        if value is ...:
            del at[last]
        else:
            at[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("sensitivity", "layers", "same.conv1", "4", math.nan),
            "sensitivity.json has nan at layer same.conv1 at 4",
        ),
        (put("latency", "layers", "same.conv1", "4", -1.0), "has -1.0 at layer same.conv1 at 4 bits"),
        (put("sensitivity", "layers", "same.conv1", "8", ...), "lacks layer same.conv1 at 8 bits"),
        (put("sensitivity", "layers", "same.conv1", ...), "sensitivity file .* lacks layer same.conv1"),
        (put("sensitivity", "layers", "same.conv9", {"4": 1, "8": 0}), "names layer 'same.conv9' in layers"),
        (put("sensitivity", "layers", ...), "lacks layers"),
        (put("sensitivity", "layers", [1]), "not an object"),
        (put("sensitivity", "pairs", 0, "value", math.inf), "has inf at pairs.0."),
        (put("sensitivity", "pairs", 0, "layers", ["same.conv1"]), "needs two layers at pairs.0."),
        (put("sensitivity", "model", "other"), "is of the model 'other', not of ResidualNet"),
        (put("sensitivity", "checkpoint", "ff" * 32), "is of other quantized weights"),
        (put("sensitivity", "version", 2), "has version 2, this hawqtvm reads 1"),
        (put("latency", "layers", "fc", ...), "latency profile .* lacks layer fc"),
        (put("latency", "layers", "same.conv2", "8", "20"), "has '20' at layer same.conv2 at 8 bits"),
        (put("latency", "other_us", ...), "lacks other_us"),
        (put("latency", "edges", 0, "us", "8-4", ...), "lacks edges.0. us 8-4, from same.conv1 to same.conv2"),
        (put("latency", "edges", 0, "to", "nowhere"), "names layer 'nowhere' in edges.0."),
        (put("latency", "checkpoint", ...), "is of other quantized weights"),
    ],
)
def test_what_is_wrong_in_a_measured_file_is_named(measured, change, message):
    with pytest.raises(BadInput, match=message):
        measured(change)


def test_measured_losses_and_edges_may_be_negative(measured):
    losses = measured(put("sensitivity", "layers", "same.conv1", "4", -1.0))
    assert losses.quantities["sensitivity"].layers["same.conv1"][4] == -1.0
    edges = measured(put("latency", "edges", 0, "us", "4-8", -2.5))
    plan = edges.uniform(8) | {"same.conv1": 4}
    assert edges.quantities["latency"].at(plan) == pytest.approx(measured().quantities["latency"].at(plan) - 3 - 2.5)


ROW = {
    "name": "a",
    "hessian_trace": 2.0,
    "weight_error_sq": {"4": 3.0, "8": 1.0},
    "parameters": 1.0,
    "latency_ms": {"4": 1.0, "8": 2.0},
}


def read(tmp_path, rows, **fields):
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"layers": rows} | fields))
    return table_problem(path)


def test_a_table_knows_what_its_layers_have(tmp_path):
    problem = read(tmp_path, [ROW])
    assert set(problem.quantities) == {"sensitivity", "size", "latency"}
    assert problem.quantities["sensitivity"].layers == {"a": {4: 6.0, 8: 2.0}}
    with pytest.raises(BadInput, match="--bops 0.5: no bops is known of the layers"):
        absolute(problem, "bops", 0.5)


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([], {}, "needs 'layers'"),
        ([ROW, ROW], {}, "no two the same"),
        ([ROW, {**ROW, "name": "b", "parameters": None}], {}, "lacks layer b: parameters"),
        ([ROW, {**ROW, "name": "b", "hessian_trace": math.nan}], {}, "has nan at layer b: hessian_trace"),
        ([ROW, {**ROW, "name": "b", "latency_ms": {"4": 1.0}}], {}, "lacks layer b: latency_ms at 8 bits"),
        ([ROW], {"tied": [["a", "c"]]}, "names layer 'c' in tied"),
        ([ROW], {"tied": [["a"], ["a"]]}, "ties a layer twice"),
        ([{"name": "a"}], {}, "needs 'hessian_trace'"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path, rows, fields, message):
    with pytest.raises(BadInput, match=message):
        read(tmp_path, rows, **fields)


@pytest.mark.parametrize(
    ("quantity", "limit", "value"),
    [
        ("size", "8MB", 8e6),
        ("size", "1 MiB", 2**20),
        ("latency", "4.2ms", 4200),
        ("latency", "1s", 1e6),
        ("size", 1, 2**20),
    ],
)
def test_limits_as_written(tmp_path, quantity, limit, value):
    assert absolute(read(tmp_path, [ROW]), quantity, limit) == pytest.approx(value)


@pytest.mark.parametrize("limit", ["-1", "1.5", "8", "4GHz", "8mb", "nan", "ms", "", "4.2MB"])
def test_limits_that_make_no_sense(tmp_path, limit):
    with pytest.raises(BadInput, match=f"--latency {limit}: .*ms"):
        absolute(read(tmp_path, [ROW]), "latency", limit)
