"""The simulated CT against a real one: the real study lies within what the simulation draws."""

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pydicom.encaps
import pytest
import torch
from scipy import ndimage as ndi

from trainer.sample_rng import SampleRng
from trainer.simulate.demo_head import SEED
from trainer.simulate.scanner import scan

ROOT = Path(__file__).parents[3]
SERIES = "Brain Head 5.0"
DRAWS = 80
# Grey matter is drawn between 34 and 41 HU for a head; the demonstration head is one such draw.
GREY_HU = (34.0, 41.0)


def _figures(hu: np.ndarray) -> tuple[float, float]:
    """Return the mean and the high-pass SD (HU) of the brain of one slice at about 0.9 mm."""
    brain = ndi.binary_opening((hu > 0) & (hu < 80), iterations=3)
    labels, count = ndi.label(brain)
    largest = labels == 1 + np.argmax(ndi.sum_labels(brain, labels, range(1, count + 1)))
    inside = ndi.binary_erosion(ndi.binary_fill_holes(largest), iterations=8)
    return float(hu[inside].mean()), float((hu - ndi.gaussian_filter(hu, 2))[inside].std())


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[tuple[float, float]]:
    found = []
    for path in sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.get("SeriesDescription") != SERIES or not 15 <= header.InstanceNumber <= 21:
            continue
        dataset = pydicom.dcmread(path)
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        stored = imagecodecs.ljpeg_decode(frame).view(np.int16)
        hu = stored.astype(np.float32) * dataset.RescaleSlope + dataset.RescaleIntercept
        fine = np.maximum(hu, -1000).astype(np.float32)
        found.append(_figures(ndi.zoom(fine, dataset.PixelSpacing[0] / 0.9, order=1)))
    return found


def _simulated() -> list[tuple[float, float]]:
    with np.load(ROOT / "rebrain_node" / "demo_head" / "head.npz") as head:
        slab = head["hu"][95:100].mean(0).astype(np.float32)
    slabs = [
        scan(torch.from_numpy(slab)[None], SampleRng(0, draw))[0].numpy() for draw in range(DRAWS)
    ]
    return [_figures(plane) for plane in slabs]


def test_brain_and_noise_of_a_real_study_lie_within_the_simulated_range(
    real: list[tuple[float, float]],
) -> None:
    simulated = np.array(_simulated())
    drawn_grey = np.random.default_rng(SEED).uniform(*GREY_HU)
    low = simulated.min(axis=0) + np.array([GREY_HU[0] - drawn_grey, 0])
    high = simulated.max(axis=0) + np.array([GREY_HU[1] - drawn_grey, 0])

    measured = np.median(np.array(real), axis=0)

    assert len(real) == 7
    assert (low < measured).all(), f"{measured} below {low}"
    assert (measured < high).all(), f"{measured} above {high}"
