"""The head frame: where slices lie, how surely, and what is no head."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from rebrain_node.domain.headframe import AXIS_MM, HeadFrame, plane_position_mm
from rebrain_node.domain.volume import AIR_HU, PreparedVolume
from rebrain_node.model.head_template import SHAPE, load_head_template, points_mm
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from tests.support.geometry_cases import GEOMETRY, RECIPE
from tests.support.located_heads import PIXEL_MM, Pose, places_of, posed, volume_of

TEMPLATE = load_head_template()


@pytest.mark.parametrize(
    "pose",
    [
        Pose(),
        Pose(nod_deg=15, lean_deg=4, shift_mm=(10, -20, 300)),
        pytest.param(Pose(nod_deg=-12, turn_deg=-8), marks=pytest.mark.full),
        pytest.param(Pose(step_mm=8.0), marks=pytest.mark.full),
        Pose(lowest_mm=-10, highest_mm=60),
        Pose(lowest_mm=-70, highest_mm=20),
    ],
    ids=["straight", "chin-up", "chin-down-turned", "thick", "no-base-no-vertex", "no-vertex"],
)
def test_a_head_is_found_in_any_pose_within_four_millimetres_and_three_on_average(pose):
    volume, truth = posed(pose)
    frame = locate(volume, TEMPLATE)
    assert frame.plausibility > 0.9
    error = frame.position_mm - truth
    in_brain = (truth > -45) & (truth < 75)
    assert np.abs(error[in_brain]).max() <= 4.0
    assert np.abs(error[in_brain]).mean() <= 3.0
    assert (np.diff(frame.position_mm) > 0).all()


def test_a_head_nearer_the_middle_of_the_scan_is_located_alike():
    """The head moves against the slices; the anatomy on them keeps its positions."""
    near = locate(posed(Pose())[0], TEMPLATE)
    moved = locate(posed(Pose(shift_mm=(11.0, 7.0, -140.0)))[0], TEMPLATE)
    low, high = near.position_mm[3:5]
    assert near.position_at_mm(0.25, 3, 4) == pytest.approx(0.75 * low + 0.25 * high)
    assert np.abs(near.position_mm - moved.position_mm).max() < 1e-6


def _not_heads() -> dict[str, PreparedVolume]:
    pose = Pose()
    places = places_of(pose)
    in_ellipsoid = np.linalg.norm(places / np.array([70, 85, 75]), axis=-1)
    in_plane = np.linalg.norm(places[..., :2] / np.array([80, 90]), axis=-1)
    in_sphere = np.linalg.norm(places, axis=-1) < 90
    pipe = np.where(in_plane > 0.92, 900.0, 30.0)
    stacks = {
        "ellipsoid of brain without a skull": np.where(in_ellipsoid < 1, 30.0, AIR_HU),
        "sphere of plastic": np.where(in_sphere, 100.0, AIR_HU),
        "cylinder of water": np.where(in_plane < 1, 0.0, AIR_HU),
        "pipe": np.where(in_plane < 1, pipe, AIR_HU),
        "air": np.full(in_plane.shape, AIR_HU),
    }
    return {name: volume_of(hu, pose) for name, hu in stacks.items()}


@pytest.mark.parametrize("name", list(_not_heads()))
def test_what_is_no_head_is_not_plausible(name):
    assert locate(_not_heads()[name], TEMPLATE).plausibility < 0.2


def test_the_position_of_a_tilted_plane_is_where_it_meets_the_axis():
    to_head = np.diag([-1.0, -1.0, 1.0, 1.0])
    lean = np.radians(20.0)
    down = np.array([0.0, np.cos(lean), np.sin(lean)])
    origin = np.array([40.0, -AXIS_MM[1], 7.0]) + 33.0 * down
    found = plane_position_mm(to_head, origin, np.array([1.0, 0.0, 0.0]), down)
    assert found == pytest.approx(7.0)


def test_the_template_covers_its_grid_and_has_its_brain_in_the_middle():
    assert TEMPLATE.level.shape == TEMPLATE.brain.shape == TEMPLATE.known.shape == SHAPE
    middle = (points_mm() * TEMPLATE.brain[..., None]).sum(axis=(0, 1, 2)) / TEMPLATE.brain.sum()
    assert np.abs(middle - [0.0, 20.0, 10.0]).max() < 8.0  # LPS of the middle of a brain in MNI


@pytest.fixture(scope="module")
def hospital(shared_data) -> PreparedVolume:
    instances = [
        instance
        for path in sorted((shared_data / "ct_toshiba_head_study").rglob("*"))
        if path.is_file()
        if (instance := pydicom.dcmread(path)).get("SeriesDescription") == "Brain Head 5.0"
    ]
    return preprocess(assemble(instances, GEOMETRY), RECIPE)


@pytest.fixture(scope="module")
def whole(hospital) -> HeadFrame:
    return locate(hospital, TEMPLATE)


def test_the_hospital_study_is_a_symmetric_head_with_rising_positions_in_ten_seconds(hospital):
    began = time.process_time()
    frame = locate(hospital, TEMPLATE)
    assert time.process_time() - began < 10.0
    assert frame.plausibility > 0.9
    assert frame.symmetry > 0.9
    assert frame.coverage > 0.95
    assert (np.diff(frame.position_mm) > 4.0).all()


@pytest.mark.parametrize(
    "kept",
    [slice(6, None), slice(0, 26), pytest.param(slice(8, 27), marks=pytest.mark.full)],
    ids=["no-base", "no-vertex", "neither"],
)
def test_a_cropped_hospital_study_keeps_its_positions_within_two_millimetres(hospital, whole, kept):
    distances = hospital.distances_mm[kept]
    part = replace(
        hospital,
        hu=hospital.hu[kept],
        head=hospital.head[kept],
        distances_mm=distances - distances[0],
        thickness_mm=hospital.thickness_mm[kept],
        grid=replace(hospital.grid, origin_mm=hospital.grid.plane_origin_mm(distances[0])),
    )
    found = locate(part, TEMPLATE)
    assert np.abs(found.position_mm - whole.position_mm[kept]).max() < 2.0


@pytest.mark.parametrize(
    "axis",
    [0, *(pytest.param(axis, marks=pytest.mark.full) for axis in (1, 2))],
    ids=["nod", "lean", "turn"],
)
def test_a_hospital_study_rotated_by_ten_degrees_keeps_its_positions_within_two_millimetres(
    hospital, whole, axis
):
    turns = [Pose(nod_deg=10), Pose(lean_deg=10), Pose(turn_deg=10)]
    pose = replace(turns[axis], lowest_mm=-80.0, highest_mm=80.0)
    grid = hospital.grid
    middle_mm = np.array([grid.columns * grid.pixel_mm / 2, grid.rows * grid.pixel_mm / 2, 80.0])
    spacing = float(np.diff(hospital.distances_mm).mean())
    places = places_of(pose) + middle_mm  # x, y, z mm along the grid of the study
    index = np.moveaxis(places, -1, 0)[::-1] / np.array(
        [spacing, grid.pixel_mm, grid.pixel_mm]
    ).reshape(3, 1, 1, 1)
    smooth = ndimage.uniform_filter(hospital.hu, (1, 4, 4))
    hu = ndimage.map_coordinates(smooth, index, order=1, cval=AIR_HU)
    scanned = (index[0] >= 0) & (index[0] <= len(hospital.hu) - 1)
    inner = np.linalg.norm(places_of(Pose())[0, ..., :2], axis=-1) < 70
    whole_slices = np.flatnonzero((scanned | ~inner).mean(axis=(1, 2)) > 0.99)
    first, last = whole_slices[[0, -1]]
    pose = replace(pose, lowest_mm=pose.lowest_mm + first * pose.step_mm)
    turned = volume_of(hu[first : last + 1], pose)

    to_patient = np.eye(4)
    to_patient[:3, :3] = (
        np.stack([grid.row_direction, grid.column_direction, grid.normal], axis=1) @ pose.rotation
    )
    to_patient[:3, 3] = grid.origin_mm + (
        np.stack([grid.row_direction, grid.column_direction, grid.normal], axis=1) @ middle_mm
    )
    straight = whole.head_from_patient @ to_patient
    expected = [
        plane_position_mm(
            straight,
            turned.grid.plane_origin_mm(distance),
            turned.grid.row_direction,
            turned.grid.column_direction,
        )
        for distance in turned.distances_mm
    ]
    found = locate(turned, TEMPLATE)
    assert turned.grid.pixel_mm == PIXEL_MM
    assert np.abs(found.position_mm - expected).max() < 2.0


def test_a_plastic_phantom_is_not_plausible(shared_data):
    paths = sorted(p for p in (shared_data / "ct_philips_phantom/S2010").rglob("*") if p.is_file())
    instances = [i for i in map(pydicom.dcmread, paths) if "PixelData" in i]
    frame = locate(preprocess(assemble(instances, GEOMETRY), RECIPE), TEMPLATE)
    assert frame.plausibility < 0.2
