"""What scanners and archives do to a head CT: taken with its anatomy in place, or refused by name.

Each case goes from instances through selection, assembly and check, as in the node.
"""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest

from rebrain_node.errors import SeriesRejectedError
from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check
from rebrain_node.steps.select import select
from tests.support.geometry_cases import GEOMETRY, marker_of
from tests.support.phantoms import Ellipsoid, enhanced_ct, head_ct

LIMITS = shipped_limits()
#: a dense ball where `marker_of` looks for it, away from the brain's statistics
BALL = Ellipsoid((28.0, -35.0, 30.0), (7.0, 7.0, 7.0), 700.0)
LENIENT = {"CONTRAST", "OOD"}  #: what the ball itself may look like
HEAD = {"manufacturer": "SIEMENS", "noise_hu": 2.0, "parts": (BALL,)}


def leaning(degrees: float) -> tuple[float, ...]:
    """Cosines of an axial plane that is turned about all three axes of the patient."""
    angle = np.radians(degrees)
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    about_z = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    axes = about_z @ about_x
    return (*axes[:, 0], *axes[:, 1])


#: seen from the feet the same head is scanned from its other end
TURNED = tuple(-78.0 + 6.0 * k for k in range(24))
TAKEN = {
    "feet first, supine": lambda: head_ct(
        **HEAD, patient_position="FFS", slice_distances_mm=TURNED
    ),
    "head first, prone": lambda: head_ct(**HEAD, patient_position="HFP"),
    "feet first, prone": lambda: head_ct(**HEAD, patient_position="FFP", slice_distances_mm=TURNED),
    "oblique": lambda: head_ct(**HEAD, orientation=leaning(12.0)),
    "neither square nor of square pixels": lambda: head_ct(
        **HEAD, pixel_spacing_mm=(1.6, 2.0), rows=160
    ),
    "twelve bits, reversed, no instance numbers": lambda: head_ct(
        **HEAD, signed=False, bits_stored=12, instance_numbers=False
    )[::-1],
    "padding that nobody declares": lambda: head_ct(**HEAD, padding=-2048, declare_padding=False),
    "enhanced": lambda: [enhanced_ct(**HEAD, shuffled=True)],
}


@pytest.mark.hazard("H3")
@pytest.mark.hazard("H5")
@pytest.mark.hazard("H12")
@pytest.mark.parametrize("oddity", TAKEN)
def test_a_sound_head_is_taken_with_its_anatomy_in_place(oddity):
    instances = TAKEN[oddity]()
    (candidate,) = select(instances, LIMITS).candidates
    assert candidate.decision == "accepted", candidate.findings
    volume = assemble(instances, GEOMETRY)
    try:
        flags = check(volume, instances, LIMITS)
    except SeriesRejectedError as error:
        flags = error.findings
    assert {finding.code for finding in flags} <= LENIENT
    found_mm = marker_of(volume)  # bone nearby shifts it outwards; a flip would be 56 mm
    assert np.linalg.norm(found_mm - BALL.centre_mm) < 4.0


def windowed(instances, slope=1.0, intercept=0.0):
    """Turn the pixels into the 8-bit copy that a workstation shows (C40 W80)."""
    for instance in instances:
        hu = instance.pixel_array * float(instance.RescaleSlope) + instance.RescaleIntercept
        shown = np.clip(hu / 80.0, 0.0, 1.0) * 255.0
        instance.PixelData = np.rint(shown).astype(np.uint8).tobytes()
        instance["PixelData"].VR = "OW"
        instance.BitsAllocated, instance.BitsStored, instance.HighBit = 8, 8, 7
        instance.PixelRepresentation = 0
        instance.RescaleSlope, instance.RescaleIntercept = slope, intercept
    return instances


def disguised(instances, intercept):
    """Store the windowed copy in 16 bits, as if it were a CT."""
    for instance in windowed(instances, intercept=intercept):
        instance.PixelData = instance.pixel_array.astype("<u2").tobytes()
        instance.BitsAllocated, instance.BitsStored, instance.HighBit = 16, 16, 15
    return instances


def wrapped(instances):
    """Keep the lower twelve bits of HU without a sign or an intercept."""
    for instance in instances:
        hu = instance.pixel_array * float(instance.RescaleSlope) + instance.RescaleIntercept
        instance.PixelData = (hu.astype(np.int32) & 0x0FFF).astype("<u2").tobytes()
        instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 12, 11, 0
        instance.RescaleIntercept = 0
    return instances


def moved(instances, hu):
    """Shift the whole scale."""
    for instance in instances:
        instance.RescaleIntercept = float(instance.RescaleIntercept) + hu
    return instances


def upside_down(instances):
    """Name the positions in the opposite order, as feet first written for head first does."""
    places = [instance.ImagePositionPatient for instance in instances]
    for instance, place in zip(instances, places[::-1], strict=True):
        instance.ImagePositionPatient = place
    return instances


@cache
def _drawn():
    return head_ct(slice_distances_mm=tuple(-50.0 + 6.0 * k for k in range(24)))


def plain():
    """Copy a head, scanned to its top, that the cases may change."""
    return [copy.deepcopy(instance) for instance in _drawn()]


def turned(instances):
    """Let three slices lie in another plane."""
    for instance in instances[4:7]:
        instance.ImageOrientationPatient = [float(f"{c:.8f}") for c in leaning(9.0)]
    return instances


REFUSED = {
    "windowed to 8 bits": ("HU", lambda: windowed(plain())),
    "windowed, its scale in HU": ("HU", lambda: windowed(plain(), slope=80.0 / 255.0)),
    "windowed, said to have 16 bits": ("HU", lambda: disguised(plain(), 0.0)),
    "windowed, black said to be air": ("NOT-HEAD", lambda: disguised(plain(), -1024.0)),
    "12-bit wrap": ("HU", lambda: wrapped(plain())),
    "scale 50 HU high": ("HU", lambda: moved(plain(), 50.0)),
    "scale 50 HU low": ("HU", lambda: moved(plain(), -50.0)),
    "upside down": (
        "GEOM-ORIENTATION",
        lambda: upside_down(plain()),
    ),
    "frames of two planes": (
        "GEOM-ORIENTATION",
        lambda: turned(plain()),
    ),
}


@pytest.mark.hazard("H3")
@pytest.mark.hazard("H12")
@pytest.mark.hazard("H13")
@pytest.mark.parametrize("oddity", REFUSED)
def test_what_is_no_sound_head_is_refused_by_name(oddity):
    code, instances = REFUSED[oddity][0], REFUSED[oddity][1]()
    (candidate,) = select(instances, LIMITS).candidates
    if candidate.decision == "refused":
        assert code in candidate.codes
        return
    with pytest.raises(SeriesRejectedError) as error:
        check(assemble(instances, GEOMETRY), instances, LIMITS)
    assert code in {finding.code for finding in error.value.findings}
