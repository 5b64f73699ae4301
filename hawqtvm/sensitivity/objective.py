"""The loss whose increase is asked for: cross-entropy with labels, or divergence from the float model's output."""

import numpy as np
import torch
import torch.nn.functional as F

from hawqtvm.data import Images
from hawqtvm.errors import BadInput
from hawqtvm.qnn.model import QuantizedModel
from hawqtvm.qnn.reference import float_logits

BATCH_VALUES = 2**20  # of input a batch: six images of 224x224
LARGEST_BATCH = 64


def flat(logits: torch.Tensor) -> torch.Tensor:
    """Logits ``(N, C, ...)`` -> float64 ``(N, C, positions)``: a divergence is lost in a float32's last digits."""
    return logits.reshape(len(logits), logits.shape[1], -1).double()


class Objective:
    """A model, images in seeded order and batches of nearly equal size, and what its logits are held against.

    ``target``: int64 labels ``(N,)``, or the float model's float64 probabilities ``(N, C, positions)``.
    Raises BadInput: labels that the model has no logit for, fewer than two images or logits, logits not finite.
    """

    def __init__(self, model: QuantizedModel, images: Images, labels: bool, seed: int):
        if len(images) < 2:
            raise BadInput(f"{images.name}: {len(images)} image; a standard error needs 2 or more")
        order = np.random.default_rng(seed).permutation(len(images))
        size = max(1, min(LARGEST_BATCH, BATCH_VALUES // images.images[0].size))
        self.model, self.labels, self.seed, self.images = model, labels, seed, images.images[order]
        self.batches = np.array_split(np.arange(len(order)), -(-len(order) // size))
        logits = flat(torch.from_numpy(np.concatenate([float_logits(model, self.images[b]) for b in self.batches])))
        classes, positions = logits.shape[1:]
        if not logits.isfinite().all():
            raise BadInput(f"the logits of {model.name} on {images.name} are not finite; check the weights")
        if classes < 2:
            raise BadInput(f"{model.name} has one logit: a change of its loss cannot be told without two or more")
        if not labels:
            self.target = logits.softmax(1)
            return
        if positions > 1:
            raise BadInput(
                f"{model.name} has logits for {positions} positions, {images.name} a label an image: leave out --labels"
            )
        if images.labels.max() >= classes:
            raise BadInput(
                f"{images.name} has label {images.labels.max()}, {model.name} logits for 0 to {classes - 1}: "
                "give the model's own data, or leave out --labels"
            )
        self.target = torch.from_numpy(images.labels[order])

    def losses(self, logits: torch.Tensor, batch: np.ndarray) -> torch.Tensor:
        """Loss in nats of each image of a batch, float64 ``(N,)``, from its logits ``(N, C, ...)``; differentiable."""
        logits, target = flat(logits), self.target[batch]
        if self.labels:
            return F.cross_entropy(logits[:, :, 0], target, reduction="none")
        return F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1).mean(1)

    def score(self, logits: torch.Tensor, batch: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """A scalar whose gradients ``g`` at one image's tensors have the Fisher information ``E[g g^T]``.

        With labels the loss itself (the empirical Fisher).  Without, the gradient at the logits is drawn as
        ``(diag(sqrt p) - p sqrt(p)^T) e``, ``e`` of random signs: its second moment is that of the gradients of drawn
        labels, ``diag(p) - p p^T`` (the true Fisher), with none of their noise where the model is certain.
        """
        if self.labels:
            return self.losses(logits, batch).sum()
        p = self.target[batch]
        root = p.sqrt() * rademacher(rng, p.shape)
        drawn = root - p * root.sum(1, keepdim=True)
        return (flat(logits) * drawn).sum() / p.shape[2] ** 0.5


def rademacher(rng: np.random.Generator, shape: torch.Size) -> torch.Tensor:
    """Random signs, float32."""
    return torch.from_numpy(rng.integers(0, 2, tuple(shape), "int8")).float() * 2 - 1
