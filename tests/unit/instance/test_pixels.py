"""Stored values become HU through slope, intercept, sign and bits; padding is known as such."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from rebrain_node.domain.volume import AIR_HU
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.pixels import hounsfield
from tests.support.phantoms import PhantomSpec, head_ct, outside_field_of_view, slice_hu

ONE = {"rows": 32, "columns": 24, "pixel_spacing_mm": (8.0, 8.0), "slice_distances_mm": (0.0,)}
TRUTH = np.maximum(slice_hu(PhantomSpec(**ONE), 0), AIR_HU)


def refused(instance) -> str:
    with pytest.raises(SeriesRejectedError) as error:
        hounsfield(instance, None)
    return error.value.findings[0].code


@pytest.mark.hazard("H12")
@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLosslessSV1, JPEGLSLossless],
    ids=lambda uid: uid.name,
)
def test_every_transfer_syntax_gives_the_same_hounsfield_units(syntax):
    hu, _ = hounsfield(head_ct(**ONE, transfer_syntax=syntax)[0], None)
    assert np.abs(hu - TRUTH).max() <= 0.5


@pytest.mark.hazard("H12")
def test_negative_values_of_twelve_bits_keep_their_sign_and_foreign_bits_are_dropped():
    (instance,) = head_ct(**ONE, bits_stored=12, signed=True, intercept=0.0)
    clean, _ = hounsfield(instance, None)
    assert np.abs(clean - TRUTH).max() <= 0.5
    stored = np.frombuffer(instance.PixelData, "<u2")
    for foreign in (stored & 0x0FFF, stored | 0xF000):
        instance.PixelData = foreign.astype("<u2").tobytes()
        dirty, _ = hounsfield(instance, None)
        assert np.array_equal(clean, dirty)


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("declared", [True, False])
def test_padding_is_exactly_what_lies_outside_the_field_of_view(declared):
    spec = PhantomSpec(**ONE, padding=-2048, declare_padding=declared, intercept=0.0)
    hu, padding = hounsfield(head_ct(spec)[0], None)
    assert np.array_equal(padding, outside_field_of_view(spec))
    assert (hu[padding] == AIR_HU).all()


@pytest.mark.hazard("H12")
def test_padding_is_understood_when_its_sign_is_written_wrongly_and_as_a_range():
    spec = PhantomSpec(**ONE, padding=-2000, declare_padding=False, intercept=0.0)
    (instance,) = head_ct(spec)
    instance.add_new("PixelPaddingValue", "US", 0x10000 - 2000)
    instance.add_new("PixelPaddingRangeLimit", "US", 0x10000 - 1500)
    _, padding = hounsfield(instance, None)
    assert np.array_equal(padding, outside_field_of_view(spec))


def test_noise_below_air_is_not_taken_for_padding():
    hu, padding = hounsfield(head_ct(**ONE, noise_hu=40.0, intercept=0.0)[0], None)
    assert not padding.any()
    assert hu.min() == AIR_HU


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_without_a_scale_nothing_is_guessed(keyword):
    (instance,) = head_ct(**ONE)
    delattr(instance, keyword)
    assert refused(instance) == "HU"


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("slope", ["0", "-1"])
def test_a_slope_that_gives_no_scale_is_refused(slope):
    (instance,) = head_ct(**ONE)
    instance.RescaleSlope = slope
    assert refused(instance) == "HU"


def test_no_pixels_too_few_pixels_and_colour_are_refused():
    (instance,) = head_ct(**ONE)
    instance.PixelData = instance.PixelData[:100]
    assert refused(instance) == "PIXEL-DATA"
    instance.SamplesPerPixel = 3
    assert refused(instance) == "PIXEL-DATA"
    del instance.PixelData
    instance.SamplesPerPixel = 1
    assert refused(instance) == "PIXEL-DATA"
