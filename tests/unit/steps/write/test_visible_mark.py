"""The visible mark: words over every slice, or ink that never touches the head."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest

from rebrain_node.app.compose import configure, open_bundle
from rebrain_node.domain import marks
from rebrain_node.settings import Settings
from rebrain_node.steps.write import ObjectOptions, write
from rebrain_node.steps.write.visible_mark import ink_of
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

SOURCE = head_ct()
VOLUME = synthetic_volume(SOURCE, rows=160, columns=144)


def with_head(top, bottom, left, right):
    """The volume with a head that fills a rectangle of every slice."""
    head = np.zeros_like(VOLUME.head)
    head[:, top:bottom, left:right] = True
    return replace(VOLUME, head=head)


def images(volume, **options):
    derived = write(volume, SOURCE, provenance(), (), ObjectOptions(companions=(), **options))
    return [pydicom.dcmread(BytesIO(each.content)) for each in derived.instances]


@pytest.mark.parametrize("where", ["corner", "border"])
def test_ink_changes_no_pixel_of_the_head_and_is_on_every_slice_that_shows_it(where):
    volume = with_head(30, 130, 4, 140)
    volume.head[0] = False
    plain, marked = images(volume), images(volume, ink=where)
    changed = [a.pixel_array != b.pixel_array for a, b in zip(plain, marked, strict=True)]
    assert not changed[0].any(), "a slice without a head stays as it is"
    for change, head, image in zip(changed[1:], volume.head[1:], marked[1:], strict=True):
        assert change.any()
        assert not (change & head).any()
        assert (image.pixel_array[change] == volume.stored_range.white).all()


def test_without_room_there_is_no_ink_and_the_comment_says_so():
    for where in ("corner", "border"):
        full = with_head(0, 160, 0, 144)
        assert ink_of(full, where) is None
        marked = images(full, ink=where)
        assert all("No visible mark" in image.ImageComments for image in marked)
        assert all(
            np.array_equal(a.pixel_array, b.pixel_array)
            for a, b in zip(images(full), marked, strict=True)
        )


def test_where_two_lines_do_not_fit_one_is_drawn():
    both, one = (
        ink_of(with_head(30, 160, 0, 144), "corner"),
        ink_of(with_head(13, 160, 0, 144), "corner"),
    )
    assert 0 < one.sum() < both.sum()


def test_the_border_keeps_away_from_the_head():
    assert ink_of(with_head(4, 156, 4, 140), "border") is not None
    assert ink_of(with_head(3, 156, 4, 140), "border") is None


@pytest.mark.parametrize(("rows", "top"), [((20, 158), 0.01), ((2, 140), 0.94)])
def test_the_words_stand_at_the_edge_that_the_head_leaves_more_room_at(rows, top):
    volume = with_head(*rows, 4, 140)
    derived = write(volume, SOURCE, provenance(), (), ObjectOptions(companions=("PR",)))
    state = pydicom.dcmread(BytesIO(derived.instances[-1].content))
    (annotation,) = state.GraphicAnnotationSequence
    (text,) = annotation.TextObjectSequence
    assert text.UnformattedTextValue == marks.VISIBLE_WORDS
    assert text.BoundingBoxTopLeftHandCorner[1] == pytest.approx(top)
    assert len(annotation.ReferencedImageSequence) == len(volume.guides)


@pytest.mark.parametrize(
    ("visible", "ink", "has_state"),
    [
        ("none", "none", False),
        ("presentation-state", "none", True),
        ("corner", "corner", False),
        ("border", "border", False),
    ],
)
def test_the_site_decides_which_mark_is_visible(visible, ink, has_state):
    settings = Settings(marks={"visible": visible})
    configuration = configure(settings, open_bundle(settings).bundle)
    assert configuration.objects.ink == ink
    assert ("PR" in configuration.objects.companions) is has_state
    default = configure(Settings(), open_bundle(Settings()).bundle)
    assert (configuration.digest == default.digest) is (visible == "presentation-state")
