"""The distinct workloads of a network, and which of its layers have them."""

from tvm import ir

from relay_passes import attributes
from relay_passes.context import Context
from relay_passes.pipeline import laid_out
from relay_passes.rewrite import bindings
from schedules.tuning_key import tuning_key


def distinct_workloads(context: Context) -> dict:
    """{workload: names of the layers that compute it}, in the order of their first; one for each tuning key."""
    found: dict = {}
    for binding in bindings(laid_out(context)):
        if isinstance(binding.value, ir.Call):
            workload = attributes.workload(binding.value)
            layer = attributes.read(binding.value)["layer"]
            found.setdefault(tuning_key(workload), (workload, []))[1].append(layer)
    return dict(found.values())
