"""The demonstration: what comes back from the archive, slice by slice, and its score."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from rebrain_node.demonstration.returned import volume_of
from rebrain_node.demonstration.score import score
from rebrain_node.demonstration.study import Head, load_head
from rebrain_node.domain.volume import Grid, Guide, PreparedVolume, SyntheticVolume, Target
from rebrain_node.steps.write import ObjectOptions, write
from tests.support import phantoms
from tests.support.geometry_cases import RECIPE
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.support.tiny_bundle import tiny_recipe


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_map_comes_back_in_the_order_of_its_slices(mr, shuffled):
    source = phantoms.head_ct(slice_distances_mm=(-18.0, -6.0, 6.0, 18.0))
    drawn = synthetic_volume(source)
    ramp = np.linspace(0.1, 0.9, len(drawn.guides), dtype=np.float32)[:, None, None]
    drawn = replace(drawn, uncertainty=np.broadcast_to(ramp, drawn.uncertainty.shape).copy())
    written = write(drawn, source, provenance(), (), ObjectOptions(mr=mr))
    derived = [dcmread(BytesIO(instance.content)) for instance in written.instances]
    if shuffled:
        derived = [derived[k] for k in np.random.default_rng(0).permutation(len(derived))]

    back = volume_of(source, derived, tiny_recipe())

    np.testing.assert_allclose(back.uncertainty, drawn.uncertainty, atol=1e-4)
    np.testing.assert_allclose(back.intensity, drawn.intensity, atol=1e-3)
    assert [guide.kind for guide in back.guides] == [guide.kind for guide in drawn.guides]


def made_of(head: Head, offset_mm: float) -> SyntheticVolume:
    """The true T1 itself, drawn ``offset_mm`` to the left of where it is said to lie."""
    grid = Grid(
        origin_mm=head.origin_mm + np.array([0.0, 0.0, 60.0]),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_mm=1.0,
        rows=head.t1.shape[1],
        columns=head.t1.shape[2],
    )
    distances = np.arange(13.0)
    targets = [Target(distance_mm=d, below=k, above=k, alpha=0.0) for k, d in enumerate(distances)]
    truth = head.t1[60:73] / np.float32(255.0)
    prepared = PreparedVolume(
        hu=head.hu[60:73].astype(np.float32), head=truth > 0.0, grid=grid, distances_mm=distances,
        thickness_mm=(1.0,) * 13, targets=tuple(targets), spacing_mm=1.0,
        sop_instance_uids=("1.2",) * 13, frame_numbers=(None,) * 13, frame_of_reference_uid="1.2",
    )  # fmt: skip
    return SyntheticVolume(
        intensity=np.roll(truth, round(offset_mm), axis=2), uncertainty=truth,
        head=prepared.head, prepared=prepared,
        guides=tuple(Guide(target=t, kind="measured", reason="measured") for t in targets),
    )  # fmt: skip


def test_the_truth_scores_full_marks_and_a_shift_of_three_millimetres_does_not():
    head = load_head()
    perfect = score(made_of(head, 0.0), head, RECIPE)
    assert perfect.ssim > 0.9999
    assert perfect.psnr_db > 60.0
    shifted = score(made_of(head, 3.0), head, RECIPE)
    assert shifted.ssim < 0.8
    assert perfect.ct_ssim == shifted.ct_ssim < 0.8
