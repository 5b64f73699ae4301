"""What changes its bits together, and which of these interact: tied layers, blocks of a network, pairs in a block."""

from itertools import combinations

from hawqtvm.qnn.graph import LAYERS, Graph

JOINS = ("add", "concat", "max_pool2d", "avg_pool2d")
Group = tuple[str, ...]


def groups(graph: Graph) -> list[Group]:
    """All layers in execution order, those that read one tensor (and so share their bits) together."""
    tied = {name: tuple(group) for group in graph.tied() for name in group}
    return list(dict.fromkeys(tied.get(step.name, (step.name,)) for step in graph.layers))


def free_groups(graph: Graph) -> list[Group]:
    """The groups that a plan may set to 4 bits."""
    fixed = set(graph.fixed())
    return [group for group in groups(graph) if not fixed & set(group)]


def blocks(graph: Graph) -> list[list[Group]]:
    """The free groups between two places where the network is a single tensor that a join or a pool has just made.

    A residual network's blocks, an Inception network's modules, a plain network's layers from one pool to the next.
    A group belongs to the block of its first layer.
    """
    last_use = {name: index for index, step in enumerate(graph.steps) for name in step.inputs}
    made, block_of, block = {"input"}, {}, 0
    for index, step in enumerate(graph.steps):
        made.add(step.name)
        if step.op in LAYERS:
            block_of[step.name] = block
        live = {name for name in made if last_use.get(name, -1) > index}
        if step.op in JOINS and live <= {step.name}:
            block += 1
    found: dict[int, list[Group]] = {}
    for group in free_groups(graph):
        found.setdefault(block_of[group[0]], []).append(group)
    return list(found.values())


def block_pairs(graph: Graph) -> list[tuple[Group, Group]]:
    """Every two free groups of one block."""
    return [pair for block in blocks(graph) for pair in combinations(block, 2)]
