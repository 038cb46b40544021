"""Random small deformations of images: flip, shift, rotation, size, a smooth elastic field.

Elastic fields after Simard, Steinkraus and Platt ("Best practices for convolutional neural
networks", 2003), here from a coarse grid of displacements, enlarged bilinearly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xnorflow.train.recipes import Recipe

__all__ = ["deform"]

_CONTROL = 5


def deform(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Deform each image on its own.

    Parameters
    ----------
    images : Tensor of float32, shape (N, C, H, W)
        Pixels; outside the frame the value is 0.
    recipe : Recipe
        Sizes of the deformations.
    generator : torch.Generator
        The source of all randomness.

    Returns
    -------
    Tensor of float32, shape (N, C, H, W)
    """
    count, _, height, width = images.shape
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if not (recipe.rotate or recipe.scale or recipe.elastic):
        return _shifted(images, int(recipe.shift), generator)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    # Grid coordinates run from -1 to 1, so a pixel is 2/width of them.
    angle = uniform(math.radians(recipe.rotate))
    scale_x, scale_y = 1 + uniform(recipe.scale), 1 + uniform(recipe.scale)
    shift_x, shift_y = uniform(2 * recipe.shift / width), uniform(2 * recipe.shift / height)
    rows = [
        torch.stack([scale_x * angle.cos(), -scale_y * angle.sin(), shift_x], dim=1),
        torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), shift_y], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    if recipe.elastic:
        coarse = torch.randn(count, 2, _CONTROL, _CONTROL, generator=generator)
        coarse *= 2 * recipe.elastic / width
        field = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image by whole pixels, up to `most` along each axis."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    starts = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    rows = starts[0][:, None] + torch.arange(height)
    columns = starts[1][:, None] + torch.arange(width)
    flat = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    index = flat.view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view_as(images)
