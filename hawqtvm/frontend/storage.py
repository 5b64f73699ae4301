"""Decides how each tensor is quantized and where a requantization stands between two of them."""

from collections import defaultdict
from dataclasses import replace

from hawqtvm.qnn.graph import LAYERS, Graph, Step, Tensor

RESCALES = ("conv2d", "dense", "add", "avg_pool2d", "requantize")


def macs(step: Step, dims: dict[str, tuple[int, int, int]]) -> int:
    channels = dims[step.inputs[0]][0] // step.groups
    return channels * step.kernel[0] * step.kernel[1] * step.dims[0] * step.dims[1] * step.dims[2]


def depths(steps: list[Step]) -> dict[str, int]:
    depth = {"input": 0}
    for step in steps:
        depth[step.name] = 1 + max(depth[i] for i in step.inputs)
    return depth


def accumulators(input_dims: tuple, steps: list[Step], users: dict[str, list[str]]) -> dict[str, str]:
    """{add: the operand that stays an int32 accumulator until the add}, HAWQ-V3 eq. 7.

    Of the layers that only this add reads, the one with the most multiplications (it hides the add best); of
    equals the deeper, as a block's body is deeper than its shortcut; then by name.
    """
    by_name = {s.name: s for s in steps}
    dims = {"input": input_dims} | {s.name: s.dims for s in steps}
    depth, chosen = depths(steps), {}
    for add in (s for s in steps if s.op == "add"):
        sums = [
            by_name[i]
            for i in add.inputs
            if i in by_name and by_name[i].op in LAYERS and not by_name[i].relu and users[i] == [add.name]
        ]
        if sums:
            chosen[add.name] = max(sums, key=lambda s: (macs(s, dims), depth[s.name], s.name)).name
    return chosen


def with_branch_requantize(steps: list[Step], users: dict[str, list[str]]) -> list[Step]:
    """Gives a concat's branch that others read too, or that cannot rescale, a requantization of its own."""
    by_name, result = {s.name: s for s in steps}, []
    for step in steps:
        if step.op == "concat":
            inputs = []
            for index, name in enumerate(step.inputs):
                branch = by_name.get(name)
                if branch is None or branch.op not in RESCALES or len(users[name]) > 1:
                    dims = branch.dims if branch else None
                    result.append(Step(f"{step.name}.branch{index}", "requantize", (name,), dims))
                    name = result[-1].name
                inputs.append(name)
            step = replace(step, inputs=tuple(inputs))
        result.append(step)
    return result


def reads(steps: list[Step]) -> dict[str, list[str]]:
    users = defaultdict(list)
    for step in steps:
        for name in step.inputs:
            users[name].append(step.name)
    return users


def build_graph(input_dims: tuple[int, int, int], steps: list[Step]) -> Graph:
    """Steps from the frontend -> the quantized graph.

    A tensor that an add, an average pool or a requantization reads is wide; one that only layers read takes their
    bits; a layer that reads a wide tensor reads the one requantization of it that all such layers share.
    """
    steps = with_branch_requantize(steps, reads(steps))
    steps = [s if s.dims else replace(s, dims=input_dims) for s in steps]
    users, by_name = reads(steps), {s.name: s for s in steps}
    sums = accumulators(input_dims, steps, users)
    held = set(sums.values())

    group = {name: name for name in ["input", *by_name]}

    def join(first: str, second: str) -> None:
        old, new = group[second], group[first]
        group.update({name: new for name, g in group.items() if g == old})

    for step in steps:
        if step.op == "max_pool2d":
            join(step.inputs[0], step.name)
        elif step.op == "concat":
            for name in step.inputs:
                join(step.name, name)

    members = defaultdict(list)
    for name, g in group.items():
        members[g].append(name)

    def kind(g: str) -> str:
        if "input" in members[g]:
            return "input"
        if steps[-1].name in members[g]:
            return "logits"
        readers = [by_name[u] for m in members[g] for u in users[m]]
        return "wide" if any(r.op in ("add", "avg_pool2d", "requantize") for r in readers) else "codes"

    tensors = {}
    for name, g in group.items():
        joined = [m for m in members[g] if m in by_name and by_name[m].op == "concat"]
        # a pool's input holds all its output's values, a concat's output all its branches'
        ranges = joined[-1] if joined else members[g][0]
        tensors[name] = Tensor("accumulator" if name in held else kind(g), ranges, g)

    result = []
    for step in steps:
        if step.op in LAYERS and tensors[step.inputs[0]].kind == "wide":
            wide = step.inputs[0]
            codes = f"{wide}.codes"
            if codes not in tensors:
                dims = by_name[wide].dims
                tensors[codes] = Tensor("codes", tensors[wide].ranges, codes)
                result.append(Step(codes, "requantize", (wide,), dims))
            step = replace(step, inputs=(codes,))
        elif step.op == "add" and step.name in sums:
            main = sums[step.name]
            step = replace(step, inputs=(main, next(i for i in step.inputs if i != main)))
        result.append(step)
    return Graph(input_dims, tuple(result), tensors)
