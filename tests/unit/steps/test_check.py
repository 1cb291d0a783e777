"""The checks of a volume: each condition gets its own code, a sound head gets none."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import resources

import numpy as np
import pydicom
import pytest
from pydicom import dcmread

from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.codecs import register
from rebrain_node.instance.header import frames
from rebrain_node.instance.pixels import hounsfield
from rebrain_node.limits_file import load_limits, shipped_limits
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check, check_volume
from tests.support import phantom_conditions as conditions
from tests.support.phantoms import Ellipsoid, head_ct

LIMITS = shipped_limits()


def codes(volume):
    return {finding.code for finding in check_volume(volume, LIMITS)}


#: seen from the feet the same head is scanned from its other end
FROM_THE_FEET = {"patient_position": "FFP", "slice_distances_mm": tuple(range(-78, 61, 6))}


@pytest.mark.hazard("H7")
@pytest.mark.parametrize(
    "changes",
    [{}, {"gantry_tilt_deg": 20.0}, FROM_THE_FEET, {"patient_position": "HFDR"}],
    ids=["plain", "tilted", "feet-first-prone", "on-the-side"],
)
def test_a_sound_head_passes_every_check(changes):
    assert check_volume(conditions.changed(**changes), LIMITS) == ()


CONDITIONS = {
    "plastic": ("NOT-HEAD", conditions.plastic),
    "contrast": ("CONTRAST", conditions.contrast),
    "craniectomy": ("CRANIECTOMY", lambda: conditions.changed(craniectomy=True)),
    "metal": ("METAL", lambda: conditions.changed(metal=True)),
    "child": ("AGE", lambda: conditions.changed(scale=0.75)),
    "noise": ("NOISE", lambda: conditions.noisy(30.0)),
    "moved between slices": ("MOTION", lambda: conditions.moved_between_slices(9.6)),
    "moved during slices": ("MOTION", lambda: conditions.moved_during_slices(14.4)),
}


@pytest.mark.hazard("H8")
@pytest.mark.hazard("H9")
@pytest.mark.hazard("H10")
@pytest.mark.hazard("H11")
@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_condition_gets_its_own_code(condition):
    code, volume = CONDITIONS[condition]
    assert code in codes(volume())


@pytest.mark.hazard("H7")
def test_air_water_and_a_block_of_bone_are_no_heads():
    sound = conditions.head()
    for value in (-1000.0, 0.0, 900.0):
        hu = np.full(sound.hu.shape, -1000.0)
        hu[3:-3, 20:-20, 20:-20] = value
        assert "NOT-HEAD" in codes(conditions.with_hu(hu))


WRONG_SCALES = {
    "intercept missing": lambda hu: hu + 1024.0,
    "intercept 60 HU off": lambda hu: hu + 60.0,
    "slope doubled": lambda hu: (hu + 1024.0) * 2.0 - 1024.0,
    "slope 4 % off about air": lambda hu: (hu + 1000.0) * 1.04 - 1000.0,
    "sign lost": lambda hu: np.where(hu < 0, hu + 65536.0, hu),
    "12-bit wrap": lambda hu: np.where(hu < -900, hu + 4096.0, hu),
    "windowed to 8 bits": lambda hu: np.round(np.clip(hu, 0, 80) / 80 * 255),
    "not finite": lambda hu: np.where(hu > 700, np.nan, hu),
    "only padding would be left": lambda hu: np.maximum(hu, 0.0),
}


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("wrong", WRONG_SCALES)
def test_a_wrong_scale_is_refused_by_name(wrong):
    assert "HU" in codes(conditions.with_hu(WRONG_SCALES[wrong](conditions.head().hu)))


def stretched(hu, low, high, levels):
    """Clip to a window, reduce to so many grey levels, and stretch back to HU."""
    step = (high - low) / (levels - 1)
    return np.rint(np.rint((np.clip(hu, low, high) - low) / step) * step + low)


@pytest.mark.hazard("H12")
@pytest.mark.parametrize(
    "window",
    [(-1000, 1000, 256), (-1024, 3071, 256), (-1000, 400, 256), (-1000, 400, 1401)],
)
def test_a_windowed_copy_stretched_back_to_hu_is_refused_and_nothing_else_is_judged(window):
    hu = conditions.noisy(12.0).hu
    assert "HU" not in codes(conditions.with_hu(np.rint(hu)))
    assert codes(conditions.with_hu(stretched(hu, *window))) == {"HU"}


@pytest.mark.hazard("H12")
def test_a_padding_value_as_dense_as_tissue_is_flagged():
    instances = header_only(3)
    instances[1].add_new("PixelPaddingValue", "SS", 1064)
    (flag,) = check(conditions.head(), instances, LIMITS)
    assert (flag.code, flag.severity, flag.value) == ("HU-PADDING", "flag", 40)
    instances[1].PixelPaddingValue = -2000
    assert check(conditions.head(), instances, LIMITS) == ()


@pytest.mark.hazard("H12")
def test_on_a_wrong_scale_nothing_else_is_judged():
    wrong = conditions.with_hu(conditions.head().hu + 1024.0)
    assert codes(wrong) == {"HU"}


@pytest.mark.hazard("H13")
def test_a_large_bleeding_is_out_of_domain_and_a_small_one_is_not():
    rows, columns = np.indices(conditions.head().hu.shape[1:])
    for radius_mm, found in ((35.0, {"OOD"}), (8.0, set())):
        hu = conditions.head().hu.copy()
        clot = np.hypot(rows - 50, columns - 62) * 2.4 < radius_mm
        for k in range(10, 18):
            hu[k][clot & (hu[k] > 0) & (hu[k] < 100)] = 68.0
        assert codes(conditions.with_hu(hu)) == found


def with_a_nose(**changes):
    """A head with air in its face, scanned to its top."""
    sinus = Ellipsoid((0.0, -66.0, -42.0), (14.0, 14.0, 14.0), -1000.0)
    places = tuple(-52.0 + 6.0 * k for k in range(24))
    return conditions.changed(parts=(sinus,), slice_distances_mm=places, **changes)


@pytest.mark.hazard("H3")
@pytest.mark.hazard("H13")
def test_a_head_that_stands_upside_down_or_looks_backwards_is_refused():
    sound = with_a_nose()
    assert codes(sound) == set()
    assert codes(replace(sound, hu=sound.hu[::-1])) == {"GEOM-ORIENTATION"}
    assert "GEOM-ORIENTATION" in codes(replace(sound, hu=sound.hu[:, ::-1, ::-1]))


@pytest.mark.hazard("H13")
def test_a_head_that_is_turned_aside_is_out_of_domain():
    aside = check_volume(with_a_nose(patient_position="HFDR"), LIMITS)
    assert aside == ()  # the header says so: nothing is turned
    sound = with_a_nose()
    turned = check_volume(replace(sound, hu=np.rot90(sound.hu, axes=(1, 2)).copy()), LIMITS)
    assert {f.code: f.severity for f in turned}["OOD"] == "flag"


def cut(volume, first, last):
    """Only the slices from ``first`` to before ``last``."""
    some = slice(first, last)
    return replace(
        volume,
        hu=volume.hu[some],
        padding=volume.padding[some],
        positions_mm=volume.positions_mm[some],
        thickness_mm=volume.thickness_mm[some],
        sop_instance_uids=volume.sop_instance_uids[some],
        frame_numbers=volume.frame_numbers[some],
    )


@pytest.mark.hazard("H18")
@pytest.mark.parametrize("count", [12, 15, 18, 21])
@pytest.mark.parametrize("changes", [{}, FROM_THE_FEET], ids=["head-first", "feet-first"])
def test_a_head_without_its_top_is_incomplete_and_nothing_else(count, changes):
    sound = conditions.changed(**changes)
    lower = cut(sound, 0, count) if not changes else cut(sound, 24 - count, 24)
    (finding,) = check_volume(lower, LIMITS)
    assert (finding.code, finding.severity) == ("INCOMPLETE", "flag")
    assert finding.value > finding.limit == LIMITS.head.top_cm2
    assert "the top of the head is cut off" in finding.sentence


@pytest.mark.hazard("H18")
@pytest.mark.parametrize("first", [4, 8])
def test_a_head_without_its_base_is_incomplete_and_nothing_else(first):
    (finding,) = check_volume(cut(conditions.head(), first, 24), LIMITS)
    assert finding.code == "INCOMPLETE"
    assert finding.value > finding.limit == LIMITS.head.base_cm2
    assert "the bottom of the head is cut off" in finding.sentence


@pytest.mark.hazard("H18")
def test_of_a_head_cut_at_both_ends_both_are_named():
    found = check_volume(cut(conditions.head(), 6, 18), LIMITS)
    assert [finding.code for finding in found] == ["INCOMPLETE", "INCOMPLETE"]


@pytest.mark.hazard("H9")
@pytest.mark.hazard("H18")
def test_a_cut_head_is_incomplete_before_anything_else_and_an_opening_is_still_seen():
    opened = cut(conditions.changed(craniectomy=True), 0, 20)
    assert [f.code for f in check_volume(opened, LIMITS)] == ["INCOMPLETE", "CRANIECTOMY"]


@pytest.mark.hazard("H18")
@pytest.mark.parametrize("kept", [slice(0, 24), slice(0, 17), slice(9, 33)])
def test_a_part_of_the_clinical_series_is_incomplete_and_nothing_else(shared_data, kept):
    instances = [
        instance
        for path in sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm"))
        if (instance := dcmread(path)).get("SeriesDescription") == "Brain Head 5.0"
    ]
    whole = assemble(instances, LIMITS.geometry)
    assert check_volume(whole, LIMITS) == ()
    found = check_volume(cut(whole, kept.start, kept.stop), LIMITS)
    assert [finding.code for finding in found] == ["INCOMPLETE"]


@pytest.mark.hazard("H5")
def test_a_missing_slice_of_the_volume_is_found_again_after_the_selection():
    sound = conditions.head()
    keep = [k for k in range(len(sound.hu)) if k != 9]
    gap = replace(
        sound,
        hu=sound.hu[keep],
        padding=sound.padding[keep],
        positions_mm=sound.positions_mm[keep],
        thickness_mm=tuple(sound.thickness_mm[k] for k in keep),
        sop_instance_uids=tuple(sound.sop_instance_uids[k] for k in keep),
        frame_numbers=(None,) * len(keep),
    )
    assert "GEOM-GAP" in codes(gap)


def header_only(count):
    return head_ct(rows=4, columns=4, slice_distances_mm=tuple(5.0 * k for k in range(count)))


@pytest.mark.hazard("H1")
def test_mixed_identity_and_a_synthetic_source_are_refused_with_all_findings_listed():
    instances = header_only(3)
    instances[1].PatientID = "PHANTOM-2"
    instances[2].SyntheticData = "YES"
    with pytest.raises(SeriesRejectedError) as caught:
        check(conditions.noisy(30.0), instances, LIMITS)
    found = [finding.code for finding in caught.value.findings]
    assert found[:2] == ["ID-MIXED", "SRC-SYNTHETIC"]
    assert "NOISE" in found
    assert "PHANTOM-2" not in str(caught.value)


def test_the_policy_turns_a_refusal_into_a_flag():
    text = (
        'METAL = "refuse"',
        'METAL = "flag"',
    )
    lenient = load_limits(_shipped_text().replace(*text))
    flags = check(conditions.changed(metal=True), header_only(3), lenient)
    assert [(finding.code, finding.severity) for finding in flags] == [("METAL", "flag")]
    with pytest.raises(SeriesRejectedError):
        check(conditions.changed(metal=True), header_only(3), LIMITS)


def _shipped_text():
    return (resources.files("rebrain_node") / "defaults/limits.toml").read_text(encoding="utf-8")


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
