"""A frame of an Enhanced MR as if it were a classic slice, so that the same rules judge both.

What stands in the functional groups of a frame, or in those shared by all, is laid beside the
attributes of the instance (PS3.3 C.7.6.16); a frame's own group wins over a shared one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from rebrain_node.domain import marks

#: groups that a classic MR has no counterpart of: stored values are shown as they are
_LEFT_OUT: Final = ("PixelValueTransformationSequence",)
_GROUPS: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def flattened(dataset: Dataset) -> Iterator[Dataset]:
    """Yield each frame as a data set of one slice; pixels only where they are all there."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    whole = Dataset()
    whole.update({e.tag: e for e in dataset if e.keyword not in (*_GROUPS, "PixelData")})
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        _lay_beside(whole, group)
    size = 2 * int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    content = dataset.get("PixelData") or b""
    for number, group in enumerate(frames):
        flat = Dataset()
        flat.update(whole)
        flat.file_meta = dataset.file_meta
        _lay_beside(flat, group)
        _name(flat)
        flat.add_new("PixelData", "OW", content[number * size : (number + 1) * size])
        yield flat


def _lay_beside(flat: Dataset, group: Dataset) -> None:
    """Put the attributes of the first item of each functional group beside the others."""
    for element in group:
        if element.VR == "SQ" and element.value and element.keyword not in _LEFT_OUT:
            if element.tag.is_private:
                _lay_private(flat, element.value[0])
            else:
                flat.update({inner.tag: inner for inner in element.value[0]})


def _lay_private(flat: Dataset, item: Dataset) -> None:
    """Put our private elements of a frame into a block of the frame's own."""
    held, added = (
        holder.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR) for holder in (flat, item)
    )
    for element in marks.SLICE_ELEMENTS:
        if element.offset in added:
            held.add_new(element.offset, element.vr, added[element.offset].value)


def _name(flat: Dataset) -> None:
    """Give what has another name in an Enhanced MR the name it has in a classic one."""
    # new elements: those of the instance are shared by all frames
    flat.add_new("InstanceNumber", "IS", flat.get("InStackPositionNumber"))
    flat.add_new("ImageComments", "LT", flat.get("FrameComments"))
    flat.add_new("ImageType", "CS", flat.get("FrameType"))
