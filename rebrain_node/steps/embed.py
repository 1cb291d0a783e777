"""The measured slices as vectors by which they are compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.volume import PreparedVolume
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import halved
from rebrain_node.ports import Encoder


def embed(prepared: PreparedVolume, encoder: Encoder, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Embed every measured slice at half the grid in the brain window, (n, d)."""
    images = halved(recipe.brain_window.apply(prepared.hu))
    return np.stack([encoder.embed(image[None, None]) for image in images])
