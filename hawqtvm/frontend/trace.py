"""torch.nn.Module -> steps in execution order and float weights, with batch norm, ReLU and no-ops folded."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hawqtvm.errors import BadInput
from hawqtvm.frontend.operators import IN_PLACE, KINDS, SUPPORTED
from hawqtvm.qnn.graph import Step

BATCH = 2  # of the run that finds the shapes
FUSES_RELU = ("conv2d", "dense", "add", "avg_pool2d", "requantize")


def pair(value) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


class Shapes(ShapeProp):
    """Notes each tensor's shape, and as ``meta["size"]`` the numbers that a model reads off one."""

    def run_node(self, n: fx.Node):
        result = super().run_node(n)
        if isinstance(result, int | torch.Size):
            n.meta["size"] = result
        return result


class Tracer:
    """Walks the fx graph once; ``steps`` and ``weights`` ({layer: (weight float32, bias float32)}) are the result."""

    def __init__(self, module: nn.Module, input_dims: tuple[int, int, int]):
        module, model = module.eval(), type(module).__name__
        try:
            self.traced = fx.symbolic_trace(module)
        except Exception as error:
            raise BadInput(f"torch.fx cannot trace {model}: {error}") from None
        inputs = [n.target for n in self.traced.graph.nodes if n.op == "placeholder"]
        if len(inputs) != 1:
            raise BadInput(f"{model} takes {len(inputs)} inputs ({', '.join(inputs)}): the model must have one input")
        for node in self.traced.graph.nodes:
            if "input" in node.kwargs:
                node.args = (node.kwargs["input"], *node.args)
                node.kwargs = {k: v for k, v in node.kwargs.items() if k != "input"}
        try:
            with torch.no_grad():
                Shapes(self.traced).propagate(torch.zeros(BATCH, *input_dims))
        except Exception as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise BadInput(f"{model} does not run on an input of shape {input_dims}: {reason}") from None
        self.modules = dict(self.traced.named_modules())
        self.input_dims = input_dims
        self.steps: dict[str, Step] = {}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.tensor_of: dict[fx.Node, str] = {}
        self.called: set[str] = set()
        for node in self.traced.graph.nodes:
            self.visit(node)

    # -- reading nodes --

    def what(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"module {node.target} ({type(self.modules[node.target]).__name__})"
        return f"{node.op} {getattr(node.target, '__name__', node.target)}"

    def kind(self, node: fx.Node) -> str:
        kind = KINDS.get(type(self.modules[node.target]) if node.op == "call_module" else node.target)
        if kind is None:
            raise BadInput(f"unsupported operator: {self.what(node)} at '{node.name}'; supported are {SUPPORTED}")
        return kind

    def refuse(self, node: fx.Node, why: str):
        raise BadInput(f"unsupported operator: {self.what(node)} at '{node.name}': {why}")

    def arguments(self, node: fx.Node, **defaults) -> list:
        """The values of a pool's options, in the order of the function's parameters, from the module or the call."""
        if node.op == "call_module":
            return [getattr(self.modules[node.target], n, default) for n, default in defaults.items()]
        given = dict(zip(defaults, node.args[1:], strict=False)) | node.kwargs
        given = fx.node.map_arg(given, lambda n: n.meta.get("size", n))
        return [given.get(n, default) for n, default in defaults.items()]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape[1:])

    def dims(self, node: fx.Node) -> tuple[int, int, int]:
        return (*self.shape(node), 1, 1)[:3]

    def image(self, node: fx.Node) -> tuple[int, int, int]:
        """The (C, H, W) of a node's tensor, which a flattening does not change."""
        tensor = self.tensor_of[node]
        return self.steps[tensor].dims if tensor in self.steps else self.input_dims

    def name(self, node: fx.Node) -> str:
        """The module's path, or the enclosing module's path and the operator; a number when taken already."""
        taken = {"input", *self.steps}
        if node.op == "call_module":
            base = node.target
        else:
            scope = list((node.meta.get("nn_module_stack") or {"": None}).keys())[-1]
            operation = self.kind(node)
            base = f"{scope}.{operation}" if scope else operation
            taken.update(self.modules)
        name, count = base, 2
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        return name

    def only_user(self, tensor: str) -> bool:
        """Whether one traced node reads the tensor."""
        holders = [n for n, t in self.tensor_of.items() if t == tensor]
        readers = [u for n in holders for u in n.users if u not in holders]
        return len(set(readers)) == 1

    def in_place(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return getattr(self.modules[node.target], "inplace", False)
        return node.target in IN_PLACE or node.kwargs.get("inplace", False)

    # -- building steps --

    def emit(self, node: fx.Node, op: str, inputs: list[fx.Node], dims: tuple | None = None, **geometry) -> str:
        name = self.name(node)
        tensors = tuple(self.tensor_of[i] for i in inputs)
        self.steps[name] = Step(name, op, tensors, dims or self.dims(node), **geometry)
        self.tensor_of[node] = name
        return name

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.tensor_of[node] = "input"
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                self.refuse(node, "the model must return one tensor")
            if not self.steps or self.tensor_of[node.args[0]] != list(self.steps)[-1]:
                self.refuse(node, "the last operator must make the output")
        elif node.op == "get_attr":
            self.refuse(node, f"a parameter or attribute as an operand; supported are {SUPPORTED}")
        elif "size" not in node.meta:
            getattr(self, f"visit_{self.kind(node)}")(node)
            if self.in_place(node):  # whoever reads the operand from here on finds the result there
                before = self.tensor_of[node.args[0]]
                self.tensor_of |= {n: self.tensor_of[node] for n, t in self.tensor_of.items() if t == before}

    def visit_same(self, node: fx.Node) -> None:
        self.tensor_of[node] = self.tensor_of[node.args[0]]

    def visit_flatten(self, node: fx.Node) -> None:
        if node.meta["tensor_meta"].shape != (BATCH, math.prod(self.image(node.args[0]))):
            self.refuse(node, "flattening must leave (batch, features)")
        self.visit_same(node)

    visit_reshape = visit_flatten

    def visit_conv(self, node: fx.Node) -> None:
        conv: nn.Conv2d = self.modules[node.target]
        if conv.padding_mode != "zeros":
            self.refuse(node, f"padding_mode {conv.padding_mode!r}; only zeros")
        if isinstance(conv.padding, str):
            total = [
                d * (k - 1) if conv.padding == "same" else 0
                for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
            ]
            padding = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        else:
            padding = (*pair(conv.padding), *pair(conv.padding))
        name = self.emit(
            node,
            "conv2d",
            [node.args[0]],
            kernel=pair(conv.kernel_size),
            strides=pair(conv.stride),
            padding=padding,
            dilation=pair(conv.dilation),
            groups=conv.groups,
        )
        self.add_weights(node, name, conv.weight, conv.bias)

    def visit_linear(self, node: fx.Node) -> None:
        linear: nn.Linear = self.modules[node.target]
        if len(self.shape(node.args[0])) != 1:
            self.refuse(node, "a Linear must follow a flatten to (batch, features)")
        channels, height, width = self.image(node.args[0])
        if height * width == 1:
            name = self.emit(node, "dense", [node.args[0]])
            self.add_weights(node, name, linear.weight, linear.bias)
        else:  # the features are a whole image: a convolution as large as it
            name = self.emit(node, "conv2d", [node.args[0]], kernel=(height, width))
            self.add_weights(node, name, linear.weight.reshape(-1, channels, height, width), linear.bias)

    def add_weights(self, node: fx.Node, name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if node.target in self.called:
            self.refuse(node, "the module is called twice; give each use its own")
        self.called.add(node.target)
        bias = torch.zeros(weight.shape[0]) if bias is None else bias
        self.set_weights(node, name, weight.detach().numpy(), bias.detach().numpy())

    def set_weights(self, node: fx.Node, name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            arrays = tuple(np.array(a, "float32") for a in (weight, bias))
        if not all(np.isfinite(a).all() for a in arrays):
            raise BadInput(f"layer {node.target} has NaN or infinite weights; check the checkpoint")
        self.weights[name] = arrays

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
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = gamma / np.sqrt(var + norm.eps)
        folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * factor + beta
        self.set_weights(node, source, *folded)
        self.tensor_of[node] = source

    def visit_relu(self, node: fx.Node, ceiling: float | None = None) -> None:
        source = self.tensor_of[node.args[0]]
        step = self.steps.get(source)
        if step is not None and step.op in FUSES_RELU and self.only_user(source):
            limits = [c for c in (step.ceiling, ceiling) if c is not None]
            self.steps[source] = replace(step, relu=True, ceiling=min(limits, default=None))
            self.tensor_of[node] = source
        else:
            self.emit(node, "requantize", [node.args[0]], self.image(node.args[0]), relu=True, ceiling=ceiling)

    def visit_relu6(self, node: fx.Node) -> None:
        self.visit_relu(node, ceiling=6.0)

    def visit_add(self, node: fx.Node) -> None:
        operands = [*node.args, *node.kwargs.values()]
        if len(operands) != 2 or not all(isinstance(a, fx.Node) for a in operands):
            self.refuse(node, "add takes two tensors")
        shapes, images = [self.shape(a) for a in operands], [self.image(a) for a in operands]
        if shapes[0] != shapes[1] or images[0] != images[1]:
            self.refuse(node, f"add of shapes {shapes[0]} and {shapes[1]} (no broadcasting)")
        self.emit(node, "add", operands, images[0])

    def visit_cat(self, node: fx.Node) -> None:
        tensors = node.args[0] if node.args else node.kwargs["tensors"]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if dim not in (1, -len(self.shape(node))):
            self.refuse(node, "cat joins channels only (dim=1)")
        images = [self.image(t) for t in tensors]
        if len({i[1:] for i in images}) > 1:
            self.refuse(node, f"cat of flattened images of different sizes {images}")
        self.emit(node, "concat", list(tensors), (sum(i[0] for i in images), *images[0][1:]))

    def visit_max_pool(self, node: fx.Node) -> None:
        kernel, stride, padding, dilation, ceil_mode, indices = self.arguments(
            node, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
        )
        if ceil_mode or indices:
            self.refuse(node, "max pooling with ceil_mode or return_indices")
        self.emit_pool(node, "max_pool2d", kernel, stride, padding, dilation=pair(dilation))

    def visit_avg_pool(self, node: fx.Node) -> None:
        kernel, stride, padding, ceil_mode, count_pad, divisor = self.arguments(
            node,
            kernel_size=None,
            stride=None,
            padding=0,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
        )
        if ceil_mode or divisor or (any(pair(padding)) and not count_pad):
            self.refuse(node, "average pooling with ceil_mode, divisor_override or count_include_pad=False")
        self.emit_pool(node, "avg_pool2d", kernel, stride, padding)

    def emit_pool(self, node: fx.Node, op: str, kernel, stride, padding, **geometry) -> None:
        window = {"kernel": pair(kernel), "strides": pair(stride or kernel), "padding": pair(padding) * 2}
        self.emit(node, op, [node.args[0]], **window, **geometry)

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
