"""A loaded artifact as a function: images in, integer logits out, and what each of its layers did."""

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from hawqtvm.errors import BadInput, CheckFailed
from hawqtvm.runtime import threads as cpu_threads
from hawqtvm.runtime.artifact import Artifact, check_runs_here, read_artifact
from hawqtvm.runtime.engine import Program
from hawqtvm.runtime.pages import make_huge

ALIGNMENT = 64  # bytes; TVM's kernels take it for granted and crash without


def load(path: str | os.PathLike, threads: int | None = None) -> "Model":
    """Load the artifact directory ``path``; ``threads`` for its kernels, by default those it was deployed for.

    BadInput when the directory, the manifest or the library is missing or damaged, when this CPU cannot run it, when
    this machine lacks the GPU that it is for, or when the process may use fewer CPUs than ``threads``.
    """
    artifact = read_artifact(Path(path))
    count = cpu_threads.choose(threads, artifact.threads)
    gpu = check_runs_here(artifact)
    program = cpu_threads.run_with(count, lambda: Program(artifact.library, artifact.sha256, gpu))
    model = Model(artifact, program, count)
    if gpu is None:
        model.settle()
    return model


class Model:
    """An artifact, ready to run.  Safe to call from several threads, which then take turns."""

    def __init__(self, artifact: Artifact, program: Program, threads: int):
        self.artifact, self.manifest, self.threads = artifact, artifact.manifest, threads
        self.input_shape, self.batch = artifact.input_shape, artifact.input_shape[0]
        self.logits_scale = artifact.logits_scale
        self._program, self._memory = program, program.memory
        self._turn = threading.Lock()  # the VM keeps one call's state

    def settle(self) -> None:
        """Runs once, and moves what the kernels read and write to huge pages where the system gives any."""
        touched: list[np.ndarray] = []

        def after(kernel, arguments):
            if kernel in self.artifact.layer_of:
                touched.extend(map(self._memory.array, arguments))

        def work():
            codes = self._codes(np.zeros(self.input_shape, np.uint8))
            with self._program.watched(lambda kernel: None, after):
                self._logits(codes)
            make_huge(touched)

        self._run(work)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits, int32 (N, ...), of ``images``: float32 (N, C, H, W), or uint8 input codes of that shape.

        The shape is exactly the artifact's; a float logit is ``logits_scale`` times an integer one.  The result is the
        caller's own.  BadInput for another type, dtype or shape.
        """
        self._check(images)
        return self._run(lambda: self._logits(self._codes(images)))

    def run_all(self, images: np.ndarray) -> np.ndarray:
        """Logits of any number of images, run in batches of ``batch``, the last one filled up with zeros."""
        self._check(images, any_number=True)
        count = len(images)
        logits = np.empty((count, *self.artifact.output_shape[1:]), np.int32)
        for start in range(0, count, self.batch):
            part = images[start : start + self.batch]
            if len(part) < self.batch:
                part = np.concatenate([part, np.zeros((self.batch - len(part), *part.shape[1:]), part.dtype)])
            logits[start : start + self.batch] = self(part)[: count - start]
        return logits

    def trace(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Each layer's output as its kernel stored it (dtype and layout: the manifest's), in the order they ran.

        A second output follows under its tensor's name.  ``images`` as in a call, uint8 codes most often.  CheckFailed
        when a layer did not run once.
        """
        self._check(images)
        outputs: dict[str, list[np.ndarray]] = {}
        layer_of, second_of = self.artifact.layer_of, self.artifact.second_of

        def after(kernel, arguments):
            if kernel not in layer_of:
                return
            names = [layer_of[kernel]] + ([second_of[kernel]] if kernel in second_of else [])
            for name, argument in zip(names, arguments[-len(names) :], strict=True):
                # a copy: the memory plan gives the same place to later layers
                outputs.setdefault(name, []).append(self._memory.array(argument).copy())

        def work():
            codes = self._codes(images)
            with self._program.watched(lambda kernel: None, after):
                self._logits(codes)

        self._run(work)
        self._check_ran(outputs, 1)
        return {layer: stored[0] for layer, stored in outputs.items()}

    def profile(self, images: np.ndarray, repeats: int = 10) -> dict[str, list[float]]:
        """Seconds each layer's kernel took, ``repeats`` times over, after one unmeasured run.

        Measured in place, between two callbacks into Python, which add a few microseconds to each.
        """
        self._check(images)
        seconds: dict[str, list[float]] = {}
        layer_of, started = self.artifact.layer_of, 0.0

        def before(kernel):
            nonlocal started
            started = perf_counter()

        def after(kernel, arguments):
            self._memory.wait()
            ended = perf_counter()
            if kernel in layer_of:
                seconds.setdefault(layer_of[kernel], []).append(ended - started)

        def work():
            codes = self._codes(images)
            with self._program.watched(before, after):
                for _ in range(repeats + 1):
                    self._logits(codes)

        self._run(work)
        self._check_ran(seconds, repeats + 1)
        return {layer: samples[1:] for layer, samples in seconds.items()}

    def measure(self, repeats: int = 100, warmup: int = 10) -> list[float]:
        """Seconds from input codes to logits for each of ``repeats`` runs on random codes, after ``warmup`` more."""
        codes = np.random.default_rng(0).integers(0, 256, self.input_shape, np.uint8)
        samples = []

        def work():
            tensor = self._codes(codes)
            for _ in range(warmup + repeats):
                started = perf_counter()
                self._logits(tensor)
                samples.append(perf_counter() - started)

        self._run(work)
        return samples[warmup:]

    def starter(self, codes: np.ndarray) -> Callable[[], object]:
        """What begins a run on uint8 codes that are in place and, on a GPU, returns before it has ended."""
        self._check(codes)
        tensor = self._codes(codes)
        return lambda: self._program.main(tensor)

    def _run(self, work):
        with self._turn:
            return cpu_threads.run_with(self.threads, work)

    def _codes(self, images: np.ndarray):
        """uint8 codes as TVM's tensor; shares the array's memory where that is aligned."""
        tensor = self._memory.tensor(_aligned(images))
        return tensor if images.dtype == np.uint8 else self._program.quantize_input(tensor)

    def _logits(self, codes) -> np.ndarray:
        return self._memory.array(self._program.main(codes)).reshape(self.artifact.output_shape).copy()

    def _check(self, images, any_number: bool = False) -> None:
        free = 1 if any_number else 0  # leading axes that may have any length
        expected = ("any number",) * free + self.input_shape[free:]
        if not isinstance(images, np.ndarray):
            raise BadInput(f"images must be a numpy array of shape {expected}, not {type(images).__name__}: convert it")
        if images.dtype not in (np.float32, np.uint8):
            raise BadInput(f"images must be float32, or uint8 for input codes, not {images.dtype}: convert them")
        if images.ndim != 4 or images.shape[free:] != self.input_shape[free:]:
            remedy = "resize them" if any_number else "run_all takes any number of images"
            raise BadInput(f"images have shape {images.shape}, the artifact takes {expected}: {remedy}")

    def _check_ran(self, seen: dict[str, list], times: int) -> None:
        wrong = [layer for layer in self.artifact.layer_of.values() if len(seen.get(layer, ())) != times]
        if wrong:
            found = len(seen.get(wrong[0], ()))
            raise CheckFailed(f"layer {wrong[0]} ran {found} times instead of {times}: manifest and library disagree")


def _aligned(array: np.ndarray) -> np.ndarray:
    """``array`` itself where TVM can use its memory, or a copy that starts at a multiple of ``ALIGNMENT`` bytes."""
    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT == 0:
        return array
    size = math.prod(array.shape) * array.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    copy = raw[start : start + size].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
