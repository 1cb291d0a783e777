"""What the shipped network does to lesions: shown where the CT has them, nowhere else (H14)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rebrain_node
from rebrain_node.demonstration.study import load_head
from rebrain_node.engine.open import open_engine
from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.sampling import noise_field, sample_slice
from rebrain_node.model.source import conditioning_at, windowed

#: HU, radius in mm, and how much may change far away, of the display range
LESIONS = {
    "bleeding": (68.0, 12.0, 0.01),
    "infarct": (14.0, 16.0, 0.05),  # measured: 0.038
}
_AWAY_MM = 30.0


@pytest.fixture(scope="module")
def drawn():
    """Draw one measured slice of the demonstration's head, with a lesion or without."""
    bundle = load_bundle(Path(rebrain_node.__file__).parent / "bundles" / "demo")
    recipe = bundle.recipe
    engine = open_engine("openvino", bundle, threads=1)
    head = load_head()
    grid = recipe.grid
    rows, columns = np.indices((grid.rows, grid.columns))
    middle = head.origin_mm + (np.array(head.hu.shape[::-1]) - 1.0) / 2.0
    level = middle + np.array([0.0, 0.0, 20.0])
    offsets = np.stack(
        [(columns - grid.columns / 2) * grid.pixel_mm, (rows - grid.rows / 2) * grid.pixel_mm,
         np.zeros(rows.shape)],
        axis=-1,
    )  # fmt: skip
    planes = [
        head.sample(head.hu, level + offsets + np.array([0.0, 0.0, z])) for z in (-5.0, 0.0, 5.0)
    ]
    place = np.array([28.0, 8.0])  # in white matter, left
    distance = np.hypot(offsets[..., 0] - place[0], offsets[..., 1] - place[1])
    inside_skull = (planes[1] > -20.0) & (planes[1] < 90.0)

    def draw(lesion):
        hu = [plane.copy() for plane in planes]
        if lesion is not None:
            level_hu, radius_mm, _ = LESIONS[lesion]
            for plane in hu:
                plane[(distance < radius_mm) & inside_skull] = level_hu
        slices = [windowed(plane, 5.0 * k, recipe) for k, plane in enumerate(hu)]
        noise = noise_field(grid.shape, 1)
        image = sample_slice(
            engine.evaluate, conditioning_at(slices, 5.0), recipe.sampling, eta=0.0, noise=noise
        )
        return (image + 1.0) / 2.0

    return draw, draw(None), distance, inside_skull


@pytest.mark.hazard("H14")
@pytest.mark.parametrize("lesion", ["bleeding", pytest.param("infarct", marks=pytest.mark.full)])
def test_a_lesion_of_the_ct_shows_in_the_mr_and_changes_nothing_far_from_it(drawn, lesion):
    draw, sound, distance, brain = drawn
    change = np.abs(draw(lesion) - sound)
    within = float(change[brain & (distance < LESIONS[lesion][1] - 3.0)].mean())
    away = float(change[brain & (distance > _AWAY_MM)].mean())
    assert within > 0.03  # of the display range: not removed
    assert away < LESIONS[lesion][2]  # not invented elsewhere
    assert within > 8.0 * away
