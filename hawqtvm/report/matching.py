"""Which network of one run is which of another, and what makes two runs no comparison at all."""

from hawqtvm.errors import BadInput
from hawqtvm.report.run import Network, Run

ALIKE = ("model", "batch", "threads", "checkpoint")  # else it is other work, not the same at another speed
CHANGES = ("plan", "plan_hash", "target", "residual", "activations", "library")
LAYER_CHANGES = ("op", "bits", "schedule", "config")


def matched(base: Run, head: Run) -> list[tuple[Network, Network]]:
    """The networks that both runs have, by name; a single one on each side belongs together whatever its name.

    BadInput, naming what differs: the device, a model, its weights, batch or threads; no network in common; separate
    sessions with different yardsticks.
    """
    if base.device.name != head.device.name:
        raise BadInput(
            f"base was measured on {base.device.name}, head on {head.device.name}: measure both on one device"
        )
    if base.session != head.session and base.versions.yardstick != head.versions.yardstick:
        raise BadInput(
            f"base's yardstick ran with {base.versions.yardstick}, head's with {head.versions.yardstick}: measure both "
            "with one, or with --interleave"
        )
    pairs = _pairs(base, head)
    for before, after in pairs:
        for name in ALIKE:
            old, new = getattr(before, name), getattr(after, name)
            if old != new:
                what = "the sha256 of its weights" if name == "checkpoint" else name
                raise BadInput(
                    f"{after.name}: {what} is {_short(old)} in base and {_short(new)} in head; compare runs of the same"
                )
    return pairs


def _pairs(base: Run, head: Run) -> list[tuple[Network, Network]]:
    if len(base.networks) == len(head.networks) == 1:
        return [(base.networks[0], head.networks[0])]
    known = {network.name: network for network in base.networks}
    pairs = [(known[network.name], network) for network in head.networks if network.name in known]
    if not pairs:
        raise BadInput(
            f"base has {_names(base)}, head has {_names(head)}: none in common; measure the same artifacts for both"
        )
    return pairs


def changes(base: Run, head: Run) -> list[dict]:
    """What differs between the programs: ``{"network", "layer" (or None), "what", "base", "head"}`` each."""
    found = []

    def note(network: str, layer: str | None, what: str, old, new) -> None:
        if old != new:
            found.append({"network": network, "layer": layer, "what": what, "base": old, "head": new})

    for before, after in matched(base, head):
        for name in CHANGES:
            note(after.name, None, name.replace("_", " "), getattr(before, name), getattr(after, name))
        old, new = ({layer.name: layer for layer in network.layers} for network in (before, after))
        for layer in {**old, **new}:
            if layer not in old or layer not in new:
                note(after.name, layer, "kernel", *("there" if layer in layers else None for layers in (old, new)))
                continue
            for name in LAYER_CHANGES:
                note(after.name, layer, name, getattr(old[layer], name), getattr(new[layer], name))
    for name in ("hawqtvm", "tvm", "python", "numpy"):
        note("all", None, f"version of {name}", getattr(base.versions, name), getattr(head.versions, name))
    if not len(base.networks) == len(head.networks) == 1:
        old, new = ({network.name for network in run.networks} for run in (base, head))
        for name in sorted(old ^ new):
            note(name, None, "network", *("there" if name in names else None for names in (old, new)))
    return found


def _names(run: Run) -> str:
    return ", ".join(network.name for network in run.networks)


def _short(value) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 60 else text
