"""The loops of one block of a Tensor Core convolution: stage, multiply fragments, sum over warps."""

from contextlib import ExitStack

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from hawqtvm.qnn.formats import ROWS
from schedules.cpu.intrin import load, store
from schedules.cuda import device
from schedules.cuda.conv2d_geometry import QUAD, Geometry
from schedules.cuda.conv2d_space import LANES, Config, accumulators, partial_words
from schedules.cuda.conv2d_staging import Staging
from schedules.cuda.memory import copy, local, shared, unrolled, when
from schedules.target import CudaTarget
from schedules.workload import Conv2d


class Kernel:
    """Emits what a block does up to its sums; the fields are what every loop needs.

    ``warp``: (by pixels, by channels, by quads); ``origin`` and ``out_tile`` as of :class:`Staging`.
    """

    def __init__(self, config: Config, workload: Conv2d, target: CudaTarget, geo: Geometry, x, weights, where):
        self.config, self.target, self.geo = config, target, geo
        self.bits = workload.weight_bits
        self.lane, self.thread, self.warp = where.lane, where.thread, where.warp
        self.staging = Staging(config, workload, geo, x, weights, where.thread, where.origin, where.out_tile)
        self.sums = local("sums", accumulators(config))
        self.rows = self._row_addresses()

    def reduce(self):
        """The sums of this block, complete in the warps that are first by quads."""
        with unrolled(accumulators(self.config)) as number:
            store(self.sums, number, tirx.const(0, "int32"))
        chunks = self.geo.quads // self.config.chunk
        if not self.config.double_buffer:
            self._one_buffer(chunks)
        elif self.target.async_copies:
            self._asynchronous(chunks)
        else:
            self._pipelined(chunks)
        if self.config.warps_k > 1:
            self._add_up()

    def _one_buffer(self, chunks: int):
        with T.serial(chunks, unroll=False) as chunk:
            if chunks > 1:
                device.barrier()
            self.staging.copy(chunk, 0, copy)
            device.barrier()
            self._multiply(0)

    def _pipelined(self, chunks: int):
        """The chunk after the next is on its way to registers during a chunk's products."""
        self.staging.hold()
        self.staging.copy(0, 0, copy)
        self.staging.fetch(1)
        device.barrier()
        with T.serial(chunks, unroll=False) as chunk:
            with when(chunk < chunks - 1):
                self.staging.put((chunk + 1) % 2)
            with when(chunk < chunks - 2):
                self.staging.fetch(chunk + 2)
            self._multiply(chunk % 2)
            device.barrier()

    def _asynchronous(self, chunks: int):
        """The next chunk is on its way to shared memory during a chunk's products."""
        self.staging.copy(0, 0, device.copy_async)
        with T.serial(chunks, unroll=False) as chunk:
            device.wait_copies()
            device.barrier()
            with when(chunk < chunks - 1):
                self.staging.copy(chunk + 1, (chunk + 1) % 2, device.copy_async)
            self._multiply(chunk % 2)

    def _row_addresses(self):
        """Words of the staged input at which a lane's rows begin, one for each load of fragments.

        With ldmatrix lane ``8*m + r`` has row r of the load's fragment m, else lane ``4*r + k`` word k of row r.
        """
        loads = list(self._loads())
        rows = local("rows", len(loads))
        for number, (first, count) in enumerate(loads):
            if self.geo.stem:
                fragment, row = first, self.lane // QUAD
            else:
                fragment, row = first + self.lane // ROWS % count, self.lane % ROWS
            fragment = T.bind(self.warp[0] * self.config.frags_m + fragment)
            line, column = fragment // self.config.width, fragment % self.config.width * self.geo.pixels
            store(rows, number, self._row(line * self.geo.y.stride, column + row // self.geo.rows, row % self.geo.rows))
        return rows

    def _row(self, line, column, image):
        staged, x = self.staging.tile, self.geo.x
        if self.geo.stem:
            at = image * staged.pitch + line * staged.columns + column * x.stride
            return at + self.lane % QUAD * x.dilation
        at = ((line * staged.columns + column) * self.geo.rows + image) * staged.pitch
        return at + self.warp[2] * (self._warp_quads * QUAD)

    def _loads(self):
        """(first fragment, number of fragments) of each load of a quad of the input."""
        first = 0
        while first < self.config.frags_m:
            left = self.config.frags_m - first
            count = 1 if self.geo.stem or left == 1 else 4 if left >= 4 else 2
            yield first, count
            first += count

    @property
    def _warp_quads(self) -> int:
        return self.config.chunk // self.config.warps_k

    def _multiply(self, stage):
        """All products of the chunk that is staged."""
        config, geo, staged = self.config, self.geo, self.staging.tile
        kh, kw = geo.taps
        codes, weights = local("codes", config.frags_m), local("weights", config.frags_n)
        base = T.bind(stage * staged.input) if config.double_buffer else 0
        kernel = T.bind(stage * staged.weights) if config.double_buffer else 0
        with ExitStack() as loops:
            enter = loops.enter_context
            i = enter(unrolled(kh) if config.unroll else T.serial(kh, unroll=False))
            j = enter(unrolled(kw))
            quad = enter(unrolled(self._warp_quads))
            offset = base + i * (geo.y.dilation * staged.columns * (1 if geo.stem else geo.rows * staged.pitch))
            if geo.stem:
                offset = offset + j * (QUAD * geo.x.dilation)
            else:
                column = j * geo.x.dilation
                place = column % geo.x.stride * staged.phase + column // geo.x.stride
                offset = offset + place * (geo.rows * staged.pitch) + quad * QUAD
            for number, (first, count) in enumerate(self._loads()):
                self._load_codes(codes, first, count, self.rows[number] + offset)
            step = (i * kw + j) * config.chunk + self.warp[2] * self._warp_quads + quad
            self._load_weights(weights, kernel + step * (config.channels * QUAD))
            with unrolled(config.frags_m) as m, unrolled(config.frags_n) as n:
                sums = tirx.address_of(self.sums[(m * config.frags_n + n) * 2])
                device.mma(self.bits, self.target.int4, sums, codes[m], weights[n])

    def _load_codes(self, codes, first: int, count: int, at):
        if self.geo.stem:
            store(codes, first, load(self.staging.input, at, "int32"))
        else:
            device.ldmatrix(count, tirx.address_of(codes[first]), tirx.address_of(self.staging.input[at]))

    def _load_weights(self, weights, at):
        """A lane's words of its warp's fragments, up to four of them side by side.

        TVM sizes a shared array by the accesses that it sees, and adds barriers between writes and reads that it sees:
        so it sees the reads of what is copied asynchronously, and else only the writes.
        """
        step = min(self.config.frags_n, 4)
        at = at + self.warp[1] * (self.config.frags_n * LANES)
        for first in range(0, self.config.frags_n, step):
            start = at + first * LANES + self.lane * step
            if self.config.double_buffer and self.target.async_copies:
                copy(weights, first, self.staging.kernel, start, step)
            else:
                source = tirx.address_of(self.staging.kernel[start])
                device.load_shared(step, tirx.address_of(weights[first]), source)

    def _add_up(self):
        """Sums of the warps that share a tile, the upper half of them to the lower half, until one has all.

        TVM may put them where the operands were, hence the first barrier.
        """
        config, size = self.config, accumulators(self.config)
        partial = shared("partial", partial_words(config))
        tile = self.warp[0] * config.warps_n + self.warp[1]
        half = config.warps_k // 2
        while half:
            device.barrier()
            share = self.warp[2] % half * (config.warps_m * config.warps_n) + tile
            at = T.bind(share * (size * LANES) + self.lane)
            with when(tirx.all(self.warp[2] >= half, self.warp[2] < 2 * half)), unrolled(size) as number:
                store(partial, at + number * LANES, self.sums[number])
            device.barrier()
            with when(self.warp[2] < half), unrolled(size) as number:
                store(self.sums, number, self.sums[number] + partial[at + number * LANES])
            half //= 2
