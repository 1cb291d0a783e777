"""The checks on real images: a head passes, a plastic phantom and a sharp kernel do not."""

from __future__ import annotations

import time

import numpy as np
import pydicom
import pytest

from rebrain_node.domain.volume import SourceVolume
from rebrain_node.instance.codecs import register
from rebrain_node.instance.header import frames
from rebrain_node.instance.pixels import hounsfield
from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.check import check_volume

LIMITS = shipped_limits()


def volume_of(paths, description=None):
    """Stack one series by hand, so that this test knows nothing of ``assemble``."""
    register()
    instances = [pydicom.dcmread(path) for path in paths]
    instances = [i for i in instances if description in (None, i.get("SeriesDescription"))]
    placed = sorted(frames(instances), key=lambda frame: frame.distance_mm)
    pixels = [hounsfield(instances[frame.instance_index], None) for frame in placed]
    cosines = np.array(placed[0].image_orientation_patient)
    return SourceVolume(
        hu=np.stack([hu for hu, _ in pixels]),
        padding=np.stack([padding for _, padding in pixels]),
        positions_mm=np.array([frame.image_position_patient for frame in placed]),
        row_direction=cosines[:3],
        column_direction=cosines[3:],
        pixel_spacing_mm=placed[0].pixel_spacing_mm,
        thickness_mm=tuple(frame.slice_thickness_mm for frame in placed),
        sop_instance_uids=tuple(frame.sop_instance_uid for frame in placed),
        frame_numbers=(None,) * len(placed),
        frame_of_reference_uid="1.2.0",
    )


@pytest.mark.hazard("H7")
def test_the_clinical_head_passes_within_two_seconds_of_work(shared_data):
    paths = sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm"))
    soft = volume_of(paths, "Brain Head 5.0")
    begun = time.process_time()
    assert check_volume(soft, LIMITS) == ()
    assert time.process_time() - begun < 10.0


@pytest.mark.hazard("H11")
def test_a_sharp_kernel_shows_as_noise_where_its_name_is_lost(shared_data):
    paths = sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm"))
    codes = {f.code for f in check_volume(volume_of(paths, "Brain Bone 5.0"), LIMITS)}
    assert "NOISE" in codes


@pytest.mark.hazard("H7")
def test_the_plastic_phantom_is_not_a_head(shared_data):
    paths = sorted((shared_data / "ct_philips_phantom/S2010").glob("I*"))
    codes = [f.code for f in check_volume(volume_of(paths), LIMITS)]
    assert codes[0] == "NOT-HEAD"
