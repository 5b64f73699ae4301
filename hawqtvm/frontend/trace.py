"""torch.nn.Module -> steps in execution order and float weights, with batch norm, ReLU and no-ops folded."""

from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hawqtvm.errors import BadInput
from hawqtvm.frontend.operators import KINDS, SUPPORTED
from hawqtvm.qnn.graph import Step

FUSES_RELU = ("conv2d", "dense", "add", "avg_pool2d", "requantize")


def pair(value) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


class Tracer:
    """Walks the fx graph once; ``steps`` and ``weights`` ({layer: (weight float32, bias float32)}) are the result."""

    def __init__(self, module: nn.Module, input_dims: tuple[int, int, int]):
        module = module.eval()
        try:
            self.traced = fx.symbolic_trace(module)
        except Exception as error:
            raise BadInput(f"torch.fx cannot trace {type(module).__name__}: {error}") from None
        try:
            with torch.no_grad():
                ShapeProp(self.traced).propagate(torch.zeros(2, *input_dims))
        except Exception as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise BadInput(
                f"{type(module).__name__} does not run on an input of shape {input_dims}: {reason}"
            ) from None
        self.modules = dict(self.traced.named_modules())
        self.input_dims = input_dims
        self.steps: dict[str, Step] = {}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.tensor_of: dict[fx.Node, str] = {}
        for node in self.traced.graph.nodes:
            self.visit(node)

    # -- reading nodes --

    def kind(self, node: fx.Node) -> str:
        target = type(self.modules[node.target]) if node.op == "call_module" else node.target
        kind = KINDS.get(target)
        if kind is None:
            what = f"module {node.target} ({target.__name__})" if node.op == "call_module" else f"{node.op} {target}"
            raise BadInput(f"unsupported operator: {what} at '{node.name}'; supported are {SUPPORTED}")
        return kind

    def refuse(self, node: fx.Node, why: str):
        raise BadInput(f"unsupported operator: {node.target} at '{node.name}': {why}")

    def arguments(self, node: fx.Node, *names: str, **defaults) -> list:
        """The values of a pool's or function's named options, from the module or from the call."""
        if node.op == "call_module":
            return [getattr(self.modules[node.target], n, defaults[n]) for n in names]
        given = dict(zip(names, node.args[1:], strict=False)) | node.kwargs
        return [given.get(n, defaults[n]) for n in names]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape[1:])

    def dims(self, node: fx.Node) -> tuple[int, int, int]:
        return (*self.shape(node), 1, 1)[:3]

    def name(self, node: fx.Node) -> str:
        """The module's path, or the enclosing module's path and the operator; a number when taken already."""
        if node.op == "call_module":
            base = node.target
        else:
            scope = list((node.meta.get("nn_module_stack") or {"": None}).keys())[-1]
            operation = self.kind(node)
            base = f"{scope}.{operation}" if scope else operation
        name, count = base, 2
        while name in self.steps:
            name, count = f"{base}_{count}", count + 1
        return name

    def only_user(self, tensor: str) -> bool:
        """Whether one traced node reads the tensor."""
        holders = [n for n, t in self.tensor_of.items() if t == tensor]
        readers = [u for n in holders for u in n.users if u not in holders]
        return len(set(readers)) == 1

    # -- building steps --

    def emit(self, node: fx.Node, op: str, inputs: list[fx.Node], **geometry) -> None:
        name = self.name(node)
        self.steps[name] = Step(name, op, tuple(self.tensor_of[i] for i in inputs), self.dims(node), **geometry)
        self.tensor_of[node] = name

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if "input" in self.tensor_of.values():
                self.refuse(node, "the model must have one input")
            self.tensor_of[node] = "input"
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                self.refuse(node, "the model must return one tensor")
            if not self.steps or self.tensor_of[node.args[0]] != list(self.steps)[-1]:
                self.refuse(node, "the last operator must make the output")
        else:
            if node.op not in ("call_module", "call_function", "call_method"):
                self.refuse(node, f"{node.op} of a parameter or attribute; supported are {SUPPORTED}")
            getattr(self, f"visit_{self.kind(node)}")(node)

    def visit_same(self, node: fx.Node) -> None:
        self.tensor_of[node] = self.tensor_of[node.args[0]]

    def visit_flatten(self, node: fx.Node) -> None:
        if len(self.shape(node)) != 1:
            self.refuse(node, "flattening must leave (batch, features)")
        self.visit_same(node)

    visit_reshape = visit_flatten

    def visit_conv(self, node: fx.Node) -> None:
        conv: nn.Conv2d = self.modules[node.target]
        if conv.padding_mode != "zeros":
            self.refuse(node, f"padding_mode {conv.padding_mode!r}; only zeros")
        if node.target in self.weights:
            self.refuse(node, "the module is called twice; give each use its own")
        if isinstance(conv.padding, str):
            total = [
                d * (k - 1) if conv.padding == "same" else 0
                for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
            ]
            padding = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        else:
            padding = (*pair(conv.padding), *pair(conv.padding))
        self.add_weights(node, conv.weight, conv.bias)
        self.emit(
            node,
            "conv2d",
            [node.args[0]],
            kernel=pair(conv.kernel_size),
            strides=pair(conv.stride),
            padding=padding,
            dilation=pair(conv.dilation),
            groups=conv.groups,
        )

    def visit_linear(self, node: fx.Node) -> None:
        linear: nn.Linear = self.modules[node.target]
        if len(self.shape(node.args[0])) != 1:
            self.refuse(node, "a Linear must follow a flatten to (batch, features)")
        if node.target in self.weights:
            self.refuse(node, "the module is called twice; give each use its own")
        source = self.tensor_of[node.args[0]]
        channels, height, width = self.steps[source].dims if source in self.steps else self.input_dims
        if height * width == 1:
            self.add_weights(node, linear.weight, linear.bias)
            self.emit(node, "dense", [node.args[0]])
        else:  # the features are a whole image: a convolution as large as it
            self.add_weights(node, linear.weight.reshape(-1, channels, height, width), linear.bias)
            self.emit(node, "conv2d", [node.args[0]], kernel=(height, width))

    def add_weights(self, node: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        bias = torch.zeros(weight.shape[0]) if bias is None else bias
        arrays = tuple(t.detach().to(torch.float32).numpy().copy() for t in (weight, bias))
        if not all(np.isfinite(a).all() for a in arrays):
            raise BadInput(f"layer {node.target} has NaN or infinite weights; check the checkpoint")
        self.weights[node.target] = arrays

    def visit_norm(self, node: fx.Node) -> None:
        source = self.tensor_of[node.args[0]]
        if source not in self.weights or not self.only_user(source) or self.steps[source].relu:
            self.refuse(node, "a batch norm is folded into the convolution right before it, and there is none")
        norm: nn.BatchNorm2d = self.modules[node.target]
        weight, bias = (a.astype("float64") for a in self.weights[source])
        # track_running_stats off would normalize by the batch: not a fixed affine map
        if norm.running_var is None:
            self.refuse(node, "a batch norm without running statistics cannot be folded")
        ones = torch.ones(norm.num_features)
        mean, var, gamma, beta = (
            t.detach().double().numpy()
            for t in (
                norm.running_mean,
                norm.running_var,
                norm.weight if norm.affine else ones,
                norm.bias if norm.affine else 0 * ones,
            )
        )
        factor = gamma / np.sqrt(var + norm.eps)
        folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * factor + beta
        if not all(np.isfinite(a).all() for a in folded):
            raise BadInput(f"layer {node.target} has NaN or infinite weights; check the checkpoint")
        self.weights[source] = tuple(a.astype("float32") for a in folded)
        self.tensor_of[node] = source

    def visit_relu(self, node: fx.Node, ceiling: float | None = None) -> None:
        source = self.tensor_of[node.args[0]]
        step = self.steps.get(source)
        if step is not None and step.op in FUSES_RELU and self.only_user(source):
            limits = [c for c in (step.ceiling, ceiling) if c is not None]
            self.steps[source] = replace(step, relu=True, ceiling=min(limits, default=None))
            self.tensor_of[node] = source
        else:
            self.emit(node, "requantize", [node.args[0]], relu=True, ceiling=ceiling)

    def visit_relu6(self, node: fx.Node) -> None:
        self.visit_relu(node, ceiling=6.0)

    def visit_add(self, node: fx.Node) -> None:
        if len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args) or node.kwargs:
            self.refuse(node, "add takes two tensors")
        if self.shape(node.args[0]) != self.shape(node.args[1]):
            self.refuse(
                node, f"add of shapes {self.shape(node.args[0])} and {self.shape(node.args[1])} (no broadcasting)"
            )
        self.emit(node, "add", list(node.args))

    def visit_cat(self, node: fx.Node) -> None:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        tensors = node.args[0] if node.args else node.kwargs["tensors"]
        if dim not in (1, 1 - len(self.shape(node)) - 1):
            self.refuse(node, "cat joins channels only (dim=1)")
        if any(self.dims(t) != (*self.shape(t), 1, 1)[:3] or self.dims(t)[1:] != self.dims(node)[1:] for t in tensors):
            self.refuse(node, "cat of tensors with different sizes")
        self.emit(node, "concat", list(tensors))

    def visit_max_pool(self, node: fx.Node) -> None:
        kernel, stride, padding, dilation, ceil_mode, indices = self.arguments(
            node,
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "ceil_mode",
            "return_indices",
            kernel_size=None,
            stride=None,
            padding=0,
            dilation=1,
            ceil_mode=False,
            return_indices=False,
        )
        if ceil_mode or indices:
            self.refuse(node, "max pooling with ceil_mode or return_indices")
        self.emit(
            node,
            "max_pool2d",
            [node.args[0]],
            kernel=pair(kernel),
            strides=pair(stride or kernel),
            padding=(*pair(padding), *pair(padding)),
            dilation=pair(dilation),
        )

    def visit_avg_pool(self, node: fx.Node) -> None:
        kernel, stride, padding, ceil_mode, count, divisor = self.arguments(
            node,
            "kernel_size",
            "stride",
            "padding",
            "ceil_mode",
            "count_include_pad",
            "divisor_override",
            kernel_size=None,
            stride=None,
            padding=0,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
        )
        if ceil_mode or divisor or (padding not in (0, (0, 0)) and not count):
            self.refuse(node, "average pooling with ceil_mode, divisor_override or count_include_pad=False")
        self.emit(
            node,
            "avg_pool2d",
            [node.args[0]],
            kernel=pair(kernel),
            strides=pair(stride or kernel),
            padding=(*pair(padding), *pair(padding)),
        )

    def visit_global_pool(self, node: fx.Node) -> None:
        _, height, width = self.dims(node.args[0])
        _, out_height, out_width = self.dims(node)
        if height % out_height or width % out_width:
            self.refuse(node, f"adaptive pooling of {height}x{width} to {out_height}x{out_width} has uneven windows")
        window = (height // out_height, width // out_width)
        self.emit(node, "avg_pool2d", [node.args[0]], kernel=window, strides=window)

    def visit_mean(self, node: fx.Node) -> None:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if sorted(a % 4 for a in ([axes] if isinstance(axes, int) else axes or [])) != [2, 3]:
            self.refuse(node, "mean is over height and width only (dim=(2, 3))")
        window = self.dims(node.args[0])[1:]
        self.emit(node, "avg_pool2d", [node.args[0]], kernel=window, strides=window)


def trace(module: nn.Module, input_dims: tuple[int, int, int]) -> tuple[list[Step], dict[str, tuple]]:
    """Steps and folded float weights of ``module`` for inputs ``(N, *input_dims)``.

    Raises BadInput naming the first operator that is not supported, or the layer with NaN weights.
    """
    tracer = Tracer(module, input_dims)
    return list(tracer.steps.values()), tracer.weights
