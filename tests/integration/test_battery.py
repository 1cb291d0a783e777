"""48 axis orders and flips x 20 phantoms: where anatomy lies, from the written objects alone.

Inside the head the source's HU are a linear function of the patient position along one axis, so
a synthetic MR that repeats them tells, voxel by voxel, where its anatomy was measured.
"""

from __future__ import annotations

import itertools
import os
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from rebrain_node.errors import SeriesRejectedError
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.geometry_cases import GEOMETRY, RECIPE, WindowedSource
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance

HU_PER_MM = 0.38  #: the brain window of 80 HU spans about 200 mm of head
HU_STEP = 0.02  #: Rescale Slope of the ramp
ORDERS = [
    np.diag(signs)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
PHANTOMS = 20 if os.environ.get("REBRAIN_FULL") == "1" else 1


def turned(angles_deg: np.ndarray) -> np.ndarray:
    """Rotation about x, y and z, (3, 3)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        first, second = [k for k in range(3) if k != axis]
        about = np.eye(3)
        about[first, first] = about[second, second] = np.cos(angle)
        about[first, second], about[second, first] = -np.sin(angle), np.sin(angle)
        matrix = about @ matrix
    return matrix


def with_a_ramp(instances: list[Dataset], axis: np.ndarray) -> list[Dataset]:
    """Replace the head's HU by 40 + 0.38 per millimetre along ``axis``; air stays air."""
    for instance in instances:
        rows, columns = np.indices((instance.Rows, instance.Columns))
        cosines = np.array(instance.ImageOrientationPatient, dtype=float)
        spacing = [float(value) for value in instance.PixelSpacing]
        points = (
            np.array(instance.ImagePositionPatient, dtype=float)
            + cosines[3:] * (rows * spacing[0])[..., None]
            + cosines[:3] * (columns * spacing[1])[..., None]
        )
        air = instance.pixel_array * float(instance.RescaleSlope) + instance.RescaleIntercept < -200
        hu = np.where(air, -600.0, 40.0 + HU_PER_MM * (points @ axis))
        instance.PixelData = np.rint(hu / HU_STEP).astype("<i2").tobytes()
        instance.RescaleSlope, instance.RescaleIntercept = str(HU_STEP), "0"
    return instances


def error_mm(written: list[Dataset], source: list[Dataset], axis: np.ndarray) -> float:
    """Mean distance along ``axis`` between where measured voxels lie and what they show."""
    planes = {str(s.SOPInstanceUID): np.array(s.ImagePositionPatient, dtype=float) for s in source}
    differences = []
    for image in written:
        normal = np.cross(*np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float))
        position = np.array(image.ImagePositionPatient, dtype=float)
        on_plane = min(abs(float((position - plane) @ normal)) for plane in planes.values())
        if on_plane <= 0.01:
            differences.append(differences_mm(image, axis))
    assert len(differences) == len(source)
    found = np.concatenate(differences)
    assert np.abs(found).max() < 0.2  # one voxel elsewhere would show, also without a mean
    return abs(float(found.mean()))


def differences_mm(image: Dataset, axis: np.ndarray) -> np.ndarray:
    """For each voxel well inside the head, what it shows less where it lies, mm."""
    cosines = np.array(image.ImageOrientationPatient, dtype=float)
    rows, columns = np.indices((image.Rows, image.Columns))
    points = (
        np.array(image.ImagePositionPatient, dtype=float)
        + cosines[3:] * (rows * float(image.PixelSpacing[0]))[..., None]
        + cosines[:3] * (columns * float(image.PixelSpacing[1]))[..., None]
    )
    inside = np.linalg.norm(points, axis=-1) < 55.0  # the smallest half axis is longer
    shown_mm = (image.pixel_array / 4095 * 80.0 - 40.0) / HU_PER_MM
    return np.asarray((shown_mm - points @ axis)[inside])


class BetweenNeighbours(WindowedSource):
    """An engine that blends the measured neighbours by their distances, as the network is told."""

    def evaluate(self, x, s):
        below_mm, above_mm = float(s[0, 1]), float(s[0, 2])
        if below_mm + above_mm == 0.0:
            return super().evaluate(x, s)
        blend = (x[:, 3:4] * above_mm + x[:, 4:5] * below_mm) / (below_mm + above_mm)
        return x[:, :1] - blend


def synthesised(source: list[Dataset], recipe=RECIPE) -> list[Dataset]:
    """Take a series down the path to its written MR."""
    prepared = preprocess(assemble(source, GEOMETRY), recipe)
    guides = retrieve(prepared, recipe)
    synthetic = synthesise(prepared, guides, BetweenNeighbours(), recipe, 1)
    derived = write(synthetic, source, provenance(), (), ObjectOptions(companions=()))
    return [pydicom.dcmread(BytesIO(instance.content)) for instance in derived.instances]


def test_the_output_of_the_recipe_reaches_the_written_pixels():
    source = head_ct(rows=60, columns=54, pixel_spacing_mm=(4.0, 4.0), table=False,
                     slice_distances_mm=(-6.0, 0.0, 6.0))  # fmt: skip
    output = type(RECIPE.output)(black=96, white=3095)
    changed = synthesised(source, RECIPE.model_copy(update={"output": output}))
    for image, as_before in zip(changed, synthesised(source), strict=True):
        unit = as_before.pixel_array / RECIPE.output.white
        assert np.abs(image.pixel_array - (96 + unit * 2999)).max() <= 1.0  # twice half a step
        assert (float(image.WindowCenter), float(image.WindowWidth)) == (1596.0, 3000.0)


@pytest.mark.hazard("H3")
@pytest.mark.hazard("H5")
@pytest.mark.parametrize("tilt_deg", [18.0, pytest.param(-18.0, marks=pytest.mark.full)])
def test_two_thicknesses_overlap_and_tilt_give_a_uniform_mr_that_lies_right_everywhere(tilt_deg):
    """14 slices of 4 mm, then 14 of 7 mm, overlapping by 1.1 mm where they meet."""
    thin = -80.0 + 4.0 * np.arange(14)
    thick = thin[-1] + (4.0 + 7.0) / 2 - 1.1 + 7.0 * np.arange(14)
    source = head_ct(
        rows=60,
        columns=54,
        pixel_spacing_mm=(4.2, 4.0),
        slice_distances_mm=(*thin, *thick),
        slice_thickness_mm=(4.0,) * 14 + (7.0,) * 14,
        gantry_tilt_deg=tilt_deg,
        shuffled=True,
        table=False,
    )
    axis = np.array([0.48, -0.6, 0.64])  # a shift or a flip along any axis shows
    source = with_a_ramp(source, axis)
    written = synthesised(source, RECIPE.model_copy(update={"spacing_mm": 4.0}))
    positions = np.array([image.ImagePositionPatient for image in written], dtype=float)
    normal = np.cross(*np.reshape(written[0].ImageOrientationPatient, (2, 3)).astype(float))
    steps = np.diff(positions, axis=0)
    assert np.allclose(steps, steps[0], atol=1e-3)  # uniform, along one line
    assert np.allclose(steps @ normal, np.linalg.norm(steps, axis=1), atol=1e-3)  # no shear
    first = min(np.array(s.ImagePositionPatient, dtype=float) @ normal for s in source)
    last = max(np.array(s.ImagePositionPatient, dtype=float) @ normal for s in source)
    assert positions[0] @ normal == pytest.approx(first, abs=0.01)
    assert positions[-1] @ normal == pytest.approx(last, abs=float(steps[0] @ normal))
    worst = [differences_mm(image, axis) for image in written]
    found = np.concatenate([one for one in worst if one.size])
    assert len(found) > 20_000
    assert abs(float(found.mean())) <= 0.01
    assert np.abs(found).max() < 0.2


@pytest.mark.hazard("H3")
@pytest.mark.parametrize("number", range(len(ORDERS)))
@pytest.mark.parametrize("phantom", range(PHANTOMS))
def test_whatever_the_axes_anatomy_is_where_it_was_measured(number, phantom):
    rng = np.random.default_rng((number, phantom))
    axes = ORDERS[number] @ turned(rng.uniform(-7.0, 7.0, 3))
    step_mm = rng.uniform(4.0, 7.0)
    source = head_ct(
        rows=60,
        columns=54,
        pixel_spacing_mm=tuple(rng.uniform(3.8, 4.4, 2)),
        slice_distances_mm=tuple(rng.uniform(-25.0, -15.0) + step_mm * np.arange(7)),
        slice_thickness_mm=step_mm,
        gantry_tilt_deg=float(rng.uniform(-30.0, 30.0)),
        orientation=tuple(np.concatenate([axes[0], axes[1]])),
        shuffled=True,
        instance_numbers=bool(rng.integers(2)),
        table=False,
        seed=phantom,
    )
    axis = np.eye(3)[(number + phantom) % 3]
    source = with_a_ramp(source, axis)
    volume = assemble(source, GEOMETRY)
    if abs(np.cross(*np.reshape(volume_axes(volume), (2, 3)))[2]) < np.cos(np.radians(45.0)):
        with pytest.raises(SeriesRejectedError, match="GEOM-ORIENTATION"):
            preprocess(volume, RECIPE)
        return
    prepared = preprocess(volume, RECIPE)
    synthetic = synthesise(prepared, retrieve(prepared, RECIPE), WindowedSource(), RECIPE, 1)
    options = ObjectOptions(companions=())
    derived = write(synthetic, source, provenance(), (), options)
    written = [pydicom.dcmread(BytesIO(instance.content)) for instance in derived.instances]
    assert error_mm(written, source, axis) <= 0.01


def volume_axes(volume) -> np.ndarray:
    """Row and column direction of the measured planes, (6,)."""
    return np.concatenate([volume.row_direction, volume.column_direction])


@pytest.mark.hazard("H3")
def test_the_battery_sees_a_mirrored_and_a_shifted_result():
    axis = np.array([1.0, 0.0, 0.0])
    source = with_a_ramp(
        head_ct(rows=60, columns=54, pixel_spacing_mm=(4.0, 4.0), table=False,
                slice_distances_mm=(-6.0, 0.0, 6.0)), axis
    )  # fmt: skip
    prepared = preprocess(assemble(source, GEOMETRY), RECIPE)
    synthetic = synthesise(prepared, retrieve(prepared, RECIPE), WindowedSource(), RECIPE, 1)
    derived = write(synthetic, source, provenance(), (), ObjectOptions(companions=()))
    images = [pydicom.dcmread(BytesIO(instance.content)) for instance in derived.instances]
    assert error_mm(images, source, axis) <= 0.01
    for image in images:
        image.ImagePositionPatient[0] += 0.05
    assert error_mm(images, source, axis) > 0.01
    for image in images:
        image.PixelData = image.pixel_array[:, ::-1].tobytes()
    with pytest.raises(AssertionError):
        error_mm(images, source, axis)
