"""What a plan costs: every quantity as a polynomial of which layers have 4 bits."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property

from hawqtvm.errors import BadInput

SENSITIVITY = "sensitivity"
LIMITED = ("size", "bops", "latency")  # in bytes, operations an image, microseconds a call


@dataclass(frozen=True)
class Quantity:
    """``constant + sum linear[a] x_a + sum products[a, b] x_a x_b``, where x_a is 1 if layer a has 4 bits, else 0.

    ``layers``: the layers' own part of it, {layer: {4: value, 8: value}}.
    """

    constant: float
    linear: Mapping[str, float]
    products: Mapping[tuple[str, str], float]
    layers: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def at(self, bits: Mapping[str, int]) -> float:
        """Its value under a plan: {layer: 4 or 8}."""
        alone = sum(value for a, value in self.linear.items() if bits[a] == 4)
        together = sum(value for (a, b), value in self.products.items() if bits[a] == bits[b] == 4)
        return self.constant + alone + together

    @cached_property
    def span(self) -> float:
        """No two plans are further apart."""
        return sum(map(abs, self.linear.values())) + sum(map(abs, self.products.values()))


def quantity(
    layers: Mapping[str, Mapping[int, float]],
    other: float = 0.0,
    pairs: Iterable[tuple[str, str, float]] = (),
    edges: Iterable[tuple[str, str, float, float]] = (),
) -> Quantity:
    """A quantity from its values {layer: {4: value, 8: value}} (one that stays at 8 bits may lack the 4).

    ``other``: what no plan changes.  ``pairs``: (a, b, what both at 4 bits add).  ``edges``: (from, to, what 4 to 8
    bits adds, what 8 to 4 adds): ``u x_a (1 - x_b) + v (1 - x_a) x_b = u x_a + v x_b - (u + v) x_a x_b``.
    """
    linear = Counter({a: values[4] - values[8] for a, values in layers.items() if 4 in values})
    products: Counter = Counter()
    for a, b, value in pairs:
        products[a, b] += value
    for a, b, down, up in edges:
        linear[a] += down
        linear[b] += up
        products[a, b] -= down + up
    return Quantity(other + sum(values[8] for values in layers.values()), linear, products, layers)


@dataclass(frozen=True)
class Problem:
    """``layers``: in the network's order.  ``tied``: groups that share their bits.  ``fixed``: {layer: its only bits}.

    ``quantities``: "sensitivity" and, of "size" (bytes), "bops" (an image) and "latency" (microseconds a call), what is
    known.  ``model``, ``checkpoint`` (sha256), ``provenance``: what a plan says of where it comes from.
    """

    layers: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    fixed: Mapping[str, int]
    quantities: Mapping[str, Quantity]
    model: str | None = None
    checkpoint: str | None = None
    provenance: dict = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """{first layer: all the layers} of those that are free and get their bits together, in the network's order."""
        tie = {a: group for group in self.tied for a in group}
        return {group[0]: group for a in self.layers if a not in self.fixed for group in (tie.get(a, (a,)),)}

    @cached_property
    def leader(self) -> dict[str, str]:
        """{free layer: the first of its group}."""
        return {a: first for first, group in self.groups.items() for a in group}

    def reduced(self, quantity: Quantity) -> Quantity:
        """The same quantity over the leaders of the free groups only."""
        constant, linear, products = quantity.constant, Counter(), Counter()
        terms = [((a,), value) for a, value in quantity.linear.items()] + list(quantity.products.items())
        for layers, value in terms:
            if any(self.fixed.get(a) == 8 for a in layers):
                continue
            match sorted({self.leader[a] for a in layers if a not in self.fixed}):
                case []:
                    constant += value
                case [a]:
                    linear[a] += value
                case [a, b]:
                    products[a, b] += value
        return Quantity(constant, linear, products)

    def bits(self, at4: Iterable[str]) -> dict[str, int]:
        """Every layer's bits, from the leaders of the groups that take 4."""
        low = {a for first in at4 for a in self.groups[first]}
        return {a: self.fixed.get(a, 4 if a in low else 8) for a in self.layers}

    def uniform(self, bits: int) -> dict[str, int]:
        """The plan that gives ``bits`` to all layers but the fixed."""
        return {a: self.fixed.get(a, bits) for a in self.layers}

    def flipped(self, bits: Mapping[str, int], first: str) -> dict[str, int]:
        """The plan with one group's bits the other way."""
        return {**bits, **{a: 12 - bits[a] for a in self.groups[first]}}

    def fix(self, wanted: Mapping[str, int]) -> "Problem":
        """The problem with some layers' bits settled, and so those of the layers tied to them.

        Raises BadInput: an unknown layer, bits that are neither 4 nor 8, or that the model or a tie excludes.
        """
        settled = dict(self.fixed)
        for name, bits in wanted.items():
            self.check_known(name)
            if type(bits) is not int or bits not in (4, 8):
                raise BadInput(f"layer {name}: bits must be 4 or 8, not {bits!r}")
            group = next((group for group in self.tied if name in group), (name,))
            for a in group:
                if settled.setdefault(a, bits) != bits:
                    why = "the first and last layers do" if a in self.fixed else f"{', '.join(group)} share their bits"
                    raise BadInput(f"layer {name} cannot be fixed at {bits} bits: it stays at {settled[a]} ({why})")
        return replace(self, fixed=settled)

    def check_known(self, name: str) -> None:
        """BadInput that names the nearest layers when there is none of this name."""
        if name not in self.layers:
            near = get_close_matches(name, self.layers, 3, 0) or self.layers[:3]
            raise BadInput(f"no layer {name!r}; the nearest names: {', '.join(near)}")
