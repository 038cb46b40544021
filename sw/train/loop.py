"""The training loop: deformations, Adam on a one-cycle schedule, best epoch on validation.

After every epoch everything that the rest of the training depends on can be written to a
checkpoint; a training that goes on from one gives the bytes of one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    epochs : tuple of Epoch
        All of them.
    best : Epoch
        The epoch that was kept.
    seconds : float
        Of the whole training.
    """

    net: BinarizedNet
    epochs: tuple[Epoch, ...]
    best: Epoch
    seconds: float

    @property
    def model(self) -> TrainedNetwork:
        """The parameters as plain arrays."""
        return self.net.trained()


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
    *,
    patience: int | None = None,
    checkpoint: Path | None = None,
    make: Callable[[Recipe], BinarizedNet] = BinarizedNet,
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
    patience : int, optional
        Stop after so many epochs in a row without a better one.
    checkpoint : Path, optional
        Written after each epoch; where it exists, the training goes on from it. It is left there.
    make : callable
        Makes the network of a recipe.

    Returns
    -------
    Training
        The network of the best validation epoch (the later one of equals).

    Raises
    ------
    UserError
        There are too few frames to hold some out and fill one batch, or they have another shape;
        or the checkpoint is of another training, or cannot be read or written.
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

    net = make(recipe)
    steps = len(pixels) // recipe.batch
    optimizer = torch.optim.Adam(net.parameters(), recipe.peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=steps * epochs
    )
    run = _Run(net, optimizer, schedule, generator)
    identity = _identity(recipe, frames, epochs, seed, patience)
    if checkpoint is not None and checkpoint.exists():
        run.load(checkpoint, identity)
        for epoch in run.epochs:
            report(epoch)
    earlier = run.epochs[-1].seconds if run.epochs else 0.0
    started = time.perf_counter()
    while len(run.epochs) < epochs and not run.tired(patience):
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
        seconds = earlier + time.perf_counter() - started
        report(run.add(total / steps, right, seconds))
        if checkpoint is not None:
            run.save(checkpoint, identity)
    net.load_state_dict(run.best_state)
    net.eval()
    return Training(net, tuple(run.epochs), run.best, run.epochs[-1].seconds)


class _Run:
    """What a training has come to: everything that the rest of it depends on."""

    def __init__(
        self,
        net: BinarizedNet,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        generator: torch.Generator,
    ) -> None:
        self.parts: dict[str, Any] = {"net": net, "optimizer": optimizer, "schedule": schedule}
        self.generator = generator
        self.epochs: list[Epoch] = []
        self.best_state: dict[str, Tensor] = {}

    @property
    def best(self) -> Epoch:
        """The best epoch so far, the later one of equals."""
        return [epoch for epoch in self.epochs if epoch.best][-1]

    def add(self, loss: float, right: float, seconds: float) -> Epoch:
        """Add an epoch, and keep the network if it is the best so far."""
        better = not self.epochs or right >= self.best.validation_accuracy
        epoch = Epoch(len(self.epochs) + 1, loss, right, better, seconds)
        self.epochs.append(epoch)
        if better:
            state = self.parts["net"].state_dict()
            self.best_state = {key: value.clone() for key, value in state.items()}
        return epoch

    def tired(self, patience: int | None) -> bool:
        """Return whether the best epoch lies `patience` epochs back."""
        return bool(
            patience is not None and self.epochs and len(self.epochs) - self.best.number >= patience
        )

    def save(self, path: Path, identity: dict[str, str]) -> None:
        state = {
            "identity": identity,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_state": self.best_state,
            "generator": self.generator.get_state(),
            **{key: part.state_dict() for key, part in self.parts.items()},
        }
        # Written aside and renamed, so that a broken run never leaves half a file.
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        try:
            torch.save(state, part)
            part.replace(path)
        except OSError as error:
            raise UserError(
                f"cannot write the checkpoint {path}: {error.strerror}; "
                "name a model file in another folder with --output"
            ) from error

    def load(self, path: Path, identity: dict[str, str]) -> None:
        advice = f"delete {path} to begin anew"
        try:
            state = torch.load(path, weights_only=True)
            found = state["identity"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.PickleError) as error:
            raise UserError(f"{path} is not a whole checkpoint of a training; {advice}") from error
        other = [key for key, value in identity.items() if found.get(key) != value]
        if other:
            raise UserError(
                f"{path} is a checkpoint of another training, which differs in "
                f"{', '.join(other)}; repeat that one's command to go on with it, or {advice}"
            )
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.best_state = state["best_state"]
        self.generator.set_state(state["generator"])
        for key, part in self.parts.items():
            part.load_state_dict(state[key])


def _identity(
    recipe: Recipe, frames: Frames, epochs: int, seed: int, patience: int | None
) -> dict[str, str]:
    """Return what makes a training this one, by the words a person knows it by."""
    assert frames.y is not None
    digest = hashlib.sha256(frames.x.tobytes())
    digest.update(frames.y.tobytes())
    return {
        "the recipe": repr(recipe),
        "the data": digest.hexdigest(),
        "--epochs": str(epochs),
        "--seed": str(seed),
        "--patience": str(patience),
        # A plain string: torch's own class is not read back from a checkpoint.
        "torch's version": str(torch.__version__),
    }


def _pixels(frames: Frames) -> Tensor:
    """Return frames as bytes of shape (N, C, H, W)."""
    # A copy, since frames may be read-only and torch has no such tensors.
    return torch.from_numpy(np.array(frames.x.transpose(0, 3, 1, 2), order="C"))
