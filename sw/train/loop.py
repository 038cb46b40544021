"""The training loop: augmentation, Adam on a one-cycle schedule, best epoch on validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xnorflow.datasets import Frames
from xnorflow.errors import UserError
from xnorflow.train.augment import deform
from xnorflow.train.export import TrainedNetwork
from xnorflow.train.net import BinarizedNet
from xnorflow.train.recipes import Recipe

__all__ = ["Epoch", "Training", "accuracy", "train"]

_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    Attributes
    ----------
    number : int
        Counted from 1.
    loss : float
        Mean training loss.
    validation_accuracy : float
        On the held-out frames, 0..1.
    best : bool
        Whether it is the best epoch up to here.
    seconds : float
        Since training began.
    """

    number: int
    loss: float
    validation_accuracy: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes
    ----------
    net : BinarizedNet
        At its best epoch, in evaluation mode.
    model : TrainedNetwork
        The same parameters as plain arrays.
    best : Epoch
        The epoch that was kept.
    seconds : float
        Of the whole training.
    """

    net: BinarizedNet
    model: TrainedNetwork
    best: Epoch
    seconds: float


def accuracy(net: BinarizedNet, frames: Frames) -> float:
    """Return the fraction of labelled frames that the network classifies correctly."""
    assert frames.y is not None
    pixels, labels = _pixels(frames), torch.from_numpy(frames.y)
    net.eval()
    with torch.inference_mode():
        right = sum(
            int((net(x.float()).argmax(1) == y).sum())
            for x, y in zip(
                pixels.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True
            )
        )
    return right / len(frames)


def train(
    recipe: Recipe,
    frames: Frames,
    epochs: int,
    seed: int,
    report: Callable[[Epoch], None],
) -> Training:
    """Train a recipe.

    Runs on one thread: the same seed, data and torch version give the same model.

    Parameters
    ----------
    recipe : Recipe
        What to train, and how.
    frames : Frames
        Labelled training frames, uint8 of shape (N, H, W, C); some are held out to choose the
        epoch.
    epochs : int
        Passes over the rest.
    seed : int
        Of the split, the start, the order and the deformations.
    report : callable
        Called after each epoch.

    Returns
    -------
    Training
        The network of the best validation epoch (the later one of equals).

    Raises
    ------
    UserError
        There are too few frames to hold some out and fill one batch, or they have another shape.
    """
    assert frames.y is not None
    if frames.x.shape[1:] != recipe.image_shape:
        raise UserError(
            f"{recipe.name} takes frames of shape {recipe.image_shape}, but the data has "
            f"{frames.x.shape[1:]}; name a folder with {recipe.dataset} with --data-dir"
        )
    needed = recipe.validation + recipe.batch
    if len(frames) < needed:
        raise UserError(
            f"{recipe.name} needs at least {needed} training frames, but the data has "
            f"{len(frames)}; name a folder with all of {recipe.dataset} with --data-dir"
        )
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(frames))
    kept, held = order[recipe.validation :], order[: recipe.validation]
    validation = Frames(frames.x[held], frames.y[held])
    pixels = _pixels(Frames(frames.x[kept]))
    labels = torch.from_numpy(frames.y[kept])

    net = BinarizedNet(recipe)
    steps = len(pixels) // recipe.batch
    optimizer = torch.optim.Adam(net.parameters(), recipe.peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=steps * epochs
    )
    started = time.perf_counter()
    best: Epoch | None = None
    best_state: dict[str, Tensor] = {}
    for number in range(1, epochs + 1):
        net.train()
        total = 0.0
        # The last, incomplete batch of each order is left out.
        indices = torch.randperm(len(pixels), generator=generator)[: steps * recipe.batch]
        for batch in indices.view(steps, recipe.batch):
            images = deform(pixels[batch].float(), recipe, generator)
            loss = F.cross_entropy(net(images), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            net.clip()
            total += loss.item()
        right = accuracy(net, validation)
        better = best is None or right >= best.validation_accuracy
        epoch = Epoch(number, total / steps, right, better, time.perf_counter() - started)
        if better:
            best = epoch
            best_state = {key: value.clone() for key, value in net.state_dict().items()}
        report(epoch)
    assert best is not None
    net.load_state_dict(best_state)
    net.eval()
    return Training(net, net.trained(), best, time.perf_counter() - started)


def _pixels(frames: Frames) -> Tensor:
    """Return frames as bytes of shape (N, C, H, W)."""
    # A copy, since frames may be read-only and torch has no such tensors.
    return torch.from_numpy(np.array(frames.x.transpose(0, 3, 1, 2), order="C"))
