"""Dense layer on dot products of four: ``acc[n,o] = bias[o] + sum_c w[o,c] * q[n,c]``, then int32 logits or codes.

A task is one group of ``oc_tile`` blocks of 16 output channels; ``batch_tile`` rows of the batch by the group's blocks
stay in registers.  The blocks that make no full group are a smaller group of their own.

Weights are ``words, oc_tile, 16, 4`` int8 for each group, one group after the other; a word is four input channels.
With 4 bits the vectors of two neighbouring words share 64 bytes, the first in the low nibbles; each is used once for a
register tile, so it is unpacked in registers.
"""

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import BLOCK, Format
from schedules.cpu.channel_table import channel_table, load_bias, load_scale, table_rows
from schedules.cpu.codes import store_first, store_run
from schedules.cpu.dot4 import layer_dot4
from schedules.cpu.epilogue import finish, rescale
from schedules.cpu.intrin import (
    LANES,
    WORD_ORDER,
    argument,
    broadcast_word,
    chunks,
    flat,
    load,
    scratch,
    signed_nibbles,
    store,
    task_loop,
    view,
    words_to_bytes,
)
from schedules.cpu.nibbles import pack_nibbles
from schedules.cpu.requantize import clip
from schedules.target import CpuTarget
from schedules.workload import Dense

NAME = "dense"
WORDS = BLOCK // 4  # words of a block of input channels


@dataclass(frozen=True)
class Config:
    batch_tile: int  # rows of the batch of a register tile
    oc_tile: int  # blocks of 16 output channels of a register tile and of a task


def formats(workload, target: CpuTarget) -> tuple[Format, str] | None:
    """Accumulators and logits leave as plain NCHW, codes for another layer as NCHW16c."""
    if not (target.avx2 and isinstance(workload, Dense) and workload.x.code in ("uint4", "uint8")):
        return None
    return Format(workload.x.code, "NCHW16c", workload.x.packed), "NCHW" if _leaves_plain(workload) else "NCHW16c"


def _leaves_plain(workload: Dense) -> bool:
    epilogue = workload.epilogue
    return epilogue is None or (epilogue.out.code == "int32" and epilogue.residual is None)


def check(config: Config, workload: Dense, target: CpuTarget) -> str | None:
    wanted = formats(workload, target)
    if wanted is None or workload.x != wanted[0]:
        return "input must be uint4 or uint8 in NCHW16c"
    epilogue = workload.epilogue
    if epilogue and epilogue.codes:
        return "no second output"
    if epilogue and any(format.layout != wanted[1] for format in epilogue.formats):
        return f"output and residual must be {wanted[1]}"
    most = layer_dot4(target, workload).accumulators
    if config.batch_tile * config.oc_tile > most:
        return f"more than {most} accumulators"
    if config.batch_tile > workload.batch or config.oc_tile > _blocks(workload.out_channels):
        return "a tile is larger than the output"
    return None


def space(workload: Dense, target: CpuTarget, threads: int) -> list[Config]:
    configs, most = [], layer_dot4(target, workload).accumulators
    for oc_tile in range(1, min(most, _blocks(workload.out_channels)) + 1):
        tiles = -(-workload.batch * oc_tile // most)
        batch_tile = -(-workload.batch // tiles)
        if batch_tile * oc_tile <= most:
            configs.append(Config(batch_tile, oc_tile))
    return configs


def default(workload: Dense, target: CpuTarget, threads: int) -> Config:
    """Enough accumulators to hide a dot product's latency, and at least two tasks for each thread."""
    return min(space(workload, target, threads), key=lambda config: cycles(config, workload, target, threads))


def cycles(config: Config, workload: Dense, target: CpuTarget, threads: int) -> float:
    """Cycles of one word on the busiest thread, estimated: dot products and unpacking, their latency, or the loads."""
    unpacking = (1.75 if target.avx512 else 3.5) if workload.weight_bits == 4 else 0
    operations = (config.batch_tile * layer_dot4(target, workload).cycles + unpacking) * config.oc_tile
    step = max(operations, 5, (config.batch_tile + config.oc_tile) / 2)
    groups = -(-_blocks(workload.out_channels) // config.oc_tile)
    return -(-groups // threads) * -(-workload.batch // config.batch_tile) * (step + 1)


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)


def build(config: Config, workload: Dense, target: CpuTarget):
    """PrimFunc ``(x, weights, table, [residual], out)``; :func:`constants` makes weights and table."""
    epilogue = workload.epilogue
    in_blocks, out_blocks = _blocks(workload.in_channels), _blocks(workload.out_channels)
    out_format = epilogue.out if epilogue else Format("int32", "NCHW")
    weight_bytes = out_blocks * in_blocks * BLOCK * BLOCK * workload.weight_bits // 8
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})
        arguments = [
            argument("x", workload.x.shape(workload.x_dims), workload.x.dtype),
            argument("weights", (weight_bytes,), "int8"),
            argument("table", (out_blocks, table_rows(epilogue), LANES), "int32"),
        ]
        if epilogue and epilogue.residual:
            residual = epilogue.residual.format
            arguments.append(argument("residual", residual.shape(workload.out_dims), residual.dtype))
        arguments.append(argument("out", out_format.shape(workload.out_dims), out_format.dtype))
        x, weights, table, *residual, out = (flat(buffer) for buffer in arguments)
        kernel = _Kernel(config, workload, target, weights, table, residual[0] if residual else None, out)
        full, left = divmod(out_blocks, config.oc_tile)
        # the group with the channels past the last, which plain NCHW has no room for, is emitted on its own
        if left == 0:
            full, left = full - 1, config.oc_tile
        with task_loop(full + 1) as group:
            source = kernel.plain(x)
            if full == 0:
                kernel.group(source, group, left, last=True)
            else:
                with T.If(group < full):
                    with T.Then():
                        kernel.group(source, group, config.oc_tile, last=False)
                    with T.Else():
                        kernel.group(source, group, left, last=True)
    return builder.get()


class _Kernel:
    def __init__(self, config: Config, workload: Dense, target: CpuTarget, weights, table, residual, out):
        self.config, self.workload, self.target = config, workload, target
        self.dot = layer_dot4(target, workload)
        self.weights, self.table, self.residual, self.out = weights, table, residual, out
        self.in_blocks, self.out_blocks = _blocks(workload.in_channels), _blocks(workload.out_channels)

    def plain(self, x):
        """``x`` as bytes, a packed one in memory of this task."""
        if not self.workload.x.packed:
            return x
        pixels = self.workload.batch * self.in_blocks
        source = scratch(pixels * BLOCK + 64, "uint8")

        def unpack(pixel, count):
            words = load(x, pixel * 2, f"int32x{2 * count}")
            store(source, pixel * BLOCK, words_to_bytes(words))

        chunks(pixels, 4, unpack)
        return source

    def group(self, source, group, blocks: int, last: bool):
        batch, tile = self.workload.batch, self.config.batch_tile
        with T.serial(-(-batch // tile)) as index:
            # the last tile moves back to end at the edge, computing some rows twice
            row = T.bind(index * tile if batch % tile == 0 else tirx.min(index * tile, batch - tile))
            accumulators = self._reduce(source, row, group, blocks)
            for k in range(blocks):
                self._finish(accumulators[k], row, group * self.config.oc_tile + k, last and k == blocks - 1)

    def _reduce(self, source, row, group, blocks: int):
        tile, bits = self.config.batch_tile, self.workload.weight_bits
        accumulators = [[scratch(LANES, "int32") for _ in range(tile)] for _ in range(blocks)]
        for k, rows in enumerate(accumulators):
            bias = load_bias(self.table, self.workload.epilogue, group * self.config.oc_tile + k)
            for accumulator in rows:
                store(accumulator, 0, bias)
        block_bytes = BLOCK * 64 // 4 * bits // 8  # of one output block and one input block
        weights0 = T.bind(group * (self.config.oc_tile * self.in_blocks * block_bytes))
        with T.serial(self.in_blocks) as block:
            at = T.bind(weights0 + block * (blocks * block_bytes))
            pixel = T.bind((row * self.in_blocks + block) * BLOCK)
            for first in range(0, WORDS, self.dot.words):
                step = range(first, min(first + self.dot.words, WORDS))
                vectors = [self._weights(at, step, k, blocks) for k in range(blocks)]
                for r in range(tile):
                    x = self._codes(source, pixel + r * self.in_blocks * BLOCK, step)
                    for k, w in enumerate(vectors):
                        accumulator = accumulators[k][r]
                        store(accumulator, 0, self.dot.add(load(accumulator, 0, "int32x16"), x, w))
        return accumulators

    def _codes(self, source, pixel, words: range) -> list:
        """Words of a pixel, each in all lanes, as they are multiplied."""
        codes = [broadcast_word(source, pixel + 4 * word) for word in words]
        return [T.bind(part) for word in codes for part in self.dot.x(word)]

    def _weights(self, at, words: range, k: int, blocks: int) -> list:
        """What these words of block ``k`` are multiplied by."""
        return [T.bind(part) for word in words for part in self.dot.w(self._weight(at, word, k, blocks))]

    def _weight(self, at, word: int, k: int, blocks: int):
        if self.workload.weight_bits == 8:
            return load(self.weights, at + (word * blocks + k) * 64, "int8x64")
        packed = load(self.weights, at + (word // 2 * blocks + k) * 64, "int8x64")
        return signed_nibbles(view("int32x16", packed))[word % 2]

    def _finish(self, accumulators, row, block, last: bool):
        epilogue, channels = self.workload.epilogue, self.workload.out_channels
        scale = load_scale(self.table, epilogue, block) if epilogue else None
        for r, accumulator in enumerate(accumulators):
            value = load(accumulator, 0, "int32x16")
            pixel = T.bind((row + r) * self.out_blocks + block)
            if _leaves_plain(self.workload):
                if epilogue:
                    value = clip(rescale(value, scale, None, pixel, epilogue), epilogue.lo, epilogue.hi)
                count = channels - (self.out_blocks - 1) * BLOCK if last else LANES
                store_first(self.out, (row + r) * channels + block * BLOCK, value, count)
            else:
                (codes,) = finish(self.target, [value], scale, self.residual, [pixel], 1, epilogue)
                store_run(self.out, pixel, codes, 1, epilogue.out)


def constants(config: Config, workload: Dense, weight, bias, b=None, c=None) -> list[np.ndarray]:
    """``weight (O,C)`` int8, ``bias``, ``b``, ``c`` ``(O,)`` int32 -> weights and table as :func:`build` reads them."""
    in_blocks, out_blocks = _blocks(workload.in_channels), _blocks(workload.out_channels)
    padded = np.zeros((out_blocks * BLOCK, in_blocks * BLOCK), "int8")
    padded[: weight.shape[0], : weight.shape[1]] = weight
    if workload.x.packed:
        padded = padded.reshape(len(padded), -1, 8)[..., WORD_ORDER].reshape(padded.shape)
    words = padded.reshape(out_blocks, LANES, in_blocks * WORDS, 4)
    groups = [words[first : first + config.oc_tile] for first in range(0, out_blocks, config.oc_tile)]
    ordered = [group.transpose(2, 0, 1, 3).reshape(-1, 2, len(group) * 64) for group in groups]
    if workload.weight_bits == 4:
        ordered = [pack_nibbles(pairs[:, 0], pairs[:, 1]) for pairs in ordered]
    table = channel_table(out_blocks, workload.epilogue, bias, b, c)
    return [np.concatenate([group.ravel() for group in ordered]), table]
