"""The mark in the pixels is found in one slice after what people do with images, and not without.

docs/evaluation/watermark.md has the table over many slices and acquired heads.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from scipy import ndimage

from rebrain_node import watermark
from rebrain_node.domain import marks
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.domain.volume import FULL_STORED_RANGE
from rebrain_node.steps.gate import RULES
from rebrain_node.steps.gate.context import Context, SlicePixels, WrittenObject
from tests.support.synthetic_volumes import provenance

ROWS, COLUMNS = 256, 208


def head_and_slice(seed=1):
    """A head-shaped slice with texture as fine as that of a synthetic MR."""
    numbers = np.random.default_rng(seed)
    texture = sum(
        weight * ndimage.gaussian_filter(numbers.normal(size=(ROWS, COLUMNS)), width) * width
        for weight, width in ((0.15, 1.5), (0.2, 4.0), (0.4, 10.0))
    )
    y, x = np.mgrid[:ROWS, :COLUMNS]
    head = ((y - 128) / 110) ** 2 + ((x - 104) / 88) ** 2 < 1.0
    return head, np.where(head, np.clip(0.45 + texture, 0.1, 0.95), 0.0).astype(np.float32)


HEAD, PLAIN = head_and_slice()
MARKED = watermark.mark(PLAIN[None], HEAD[None])[0]


def grey(image):
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def jpeg(image):
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=80)
    return np.asarray(Image.open(stream))


def enlarged(image):
    by = 512 / max(image.shape)
    return np.asarray(Image.fromarray(image).resize([round(s * by) for s in image.shape[::-1]]))


ATTACKS = {
    "none": lambda image: image,
    "window and level": lambda image: grey((image - 0.2) / 0.6),
    "JPEG": lambda image: jpeg(grey(image)),
    "scaled": lambda image: enlarged(grey(image)),
    "scaled and JPEG": lambda image: jpeg(enlarged(grey(image))),
    "cropped": lambda image: grey(image[45:200, 37:181]),
    "turned and mirrored": lambda image: grey(image).T[::-1],
}


@pytest.mark.hazard("H6")
@pytest.mark.parametrize("name", ATTACKS)
def test_the_mark_is_found_in_one_slice_alone(name):
    found = watermark.detect(ATTACKS[name](MARKED))
    assert found.is_marked, found
    by = 2.0 if "scaled" in name else 1.0
    assert found.scale == pytest.approx(by, rel=0.02)


@pytest.mark.parametrize("name", ["none", "scaled and JPEG"])
def test_without_the_mark_none_is_found(name):
    assert not watermark.detect(ATTACKS[name](PLAIN)).is_marked


def test_with_other_keys_a_marked_slice_scores_as_an_unmarked_one():
    keys = watermark.random_keys(200, 5)
    for image in (PLAIN, MARKED):
        best = watermark.best_scores(image, (1.0,), keys)
        # the bound over keys: 200 x 4096 tests at 6.5 give less than one in a thousand
        assert best.max() < 6.5


def test_the_mark_is_on_the_head_alone_and_below_the_texture():
    change = MARKED - PLAIN
    assert not change[~HEAD].any()
    assert -10 * np.log10((change[HEAD] ** 2).mean()) > 50.0
    texture = PLAIN - ndimage.gaussian_filter(PLAIN, 1.3)
    assert change[HEAD].std() < texture[ndimage.binary_erosion(HEAD, iterations=20)].std()


def test_dark_places_and_values_at_the_ends_of_the_range_stay_in_range():
    ends = np.where(np.arange(COLUMNS) % 32 < 16, 1.0, 0.0) * HEAD
    changed = watermark.mark(ends.astype(np.float32)[None], HEAD[None])[0]
    assert changed.min() >= 0.0
    assert changed.max() <= 1.0


def test_the_mark_moves_from_slice_to_slice_and_each_is_found():
    stack = watermark.mark(np.stack([PLAIN] * 3), np.stack([HEAD] * 3), first=7)
    patterns = [(each - PLAIN)[HEAD] for each in stack]
    assert abs(np.corrcoef(patterns[0], patterns[1])[0, 1]) < 0.1
    for each in stack:
        assert watermark.detect(each, (1.0,), any_orientation=False).is_marked


@pytest.mark.hazard("H6")
def test_the_gate_finds_header_and_pixels_that_do_not_agree_about_the_mark():
    slices = [
        SlicePixels(f"MR {k}", np.rint(each * 4095).astype(np.uint16))
        for k, each in enumerate((PLAIN, MARKED))
    ]
    found = {
        (wanted, which): [
            v.what for v in rule_of("GATE-WATERMARK").violations(context(slices[which], wanted))
        ]
        for wanted in (False, True)
        for which in (0, 1)
    }
    assert found[True, 1] == found[False, 0] == []
    assert found[True, 0] == ["the pixels carry no watermark"]
    assert found[False, 1] == ["the pixels carry a watermark"]


def rule_of(code):
    return next(rule for rule in RULES if rule.code == code)


def context(pixels, wanted):
    """What the rule sees of a set of one slice whose header says what is wanted."""
    header = Dataset()
    block = header.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR, create=True)
    if wanted:
        block.add_new(marks.WATERMARK.offset, marks.WATERMARK.vr, marks.WATERMARK_SCHEME)
    header.Rows, header.Columns = pixels.stored.shape
    header.add_new("PixelData", "OW", pixels.stored.astype("<u2").tobytes())
    record = DerivedInstance(
        kind="MR", sop_class_uid="", sop_instance_uid="", series_instance_uid="", content=b""
    )
    return Context(
        records=(record,), objects=(WrittenObject(pixels.name, record, header),), unreadable=(),
        source=(), provenance=provenance(), companions=(), mr_form="classic",
        stored_range=FULL_STORED_RANGE, watermark=wanted,
    )  # fmt: skip


@pytest.mark.parametrize(
    "image",
    [np.zeros((256, 208)), np.full((256, 208), np.nan), np.ones((8, 300)), np.eye(64) * 1e30],
    ids=["black", "not a number", "small", "huge values"],
)
def test_an_odd_image_counts_as_unmarked(image):
    assert not watermark.detect(image).is_marked
