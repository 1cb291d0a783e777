"""The baseline `template`: the mean T1 of the training heads, laid over a head by an affine.

Nobody's template is needed: the node's own step places the CT of every training head in the head
frame, and its T1 lies on the same voxels. The head to be drawn is placed by the slices that every
method is given, not by the dense truth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.recipe import Recipe
from trainer.data.dataset import PreparedData
from trainer.data.located import NotLocated, located
from trainer.evaluate.mean_t1 import MeanT1
from trainer.evaluate.protocols import Case


def why_no_template(data: PreparedData) -> str | None:
    """Say why no mean T1 can be made of a data set; None where it can."""
    if not data.volumetric:
        return "no positions in millimetres: single slices cannot be placed in the head frame"
    if data.source_kind != "ct":
        return f"no CT in HU to place in the head frame: the source is {data.source_kind!r}"
    if not data.split["train"]:
        return "no training subjects whose T1 could be averaged"
    return None


@dataclass(frozen=True)
class Template:
    """The mean T1 of the training heads of a data set.

    Attributes
    ----------
    places : mapping of str to NDArray
        The heads in the mean, each with its (4, 4) `Located.head_from_slices`.
    left_out : mapping of str to str
        Training heads that could not be placed, and why.
    """

    recipe: Recipe
    mean: MeanT1
    places: Mapping[str, NDArray[np.float64]]
    left_out: Mapping[str, str]

    @classmethod
    def taught(
        cls, data: PreparedData, recipe: Recipe, progress: Callable[[], None]
    ) -> "Template | str":
        """Average the training heads; where there can be no mean, say why."""
        reason = why_no_template(data)
        if reason is not None:
            return reason
        mean, places, left_out = MeanT1.of_nobody(), {}, {}
        for name in data.split["train"]:
            subject = data.subject(name)
            try:
                found = located(subject.source, subject.positions_mm, subject.pixel_mm, recipe)
            except NotLocated as error:
                left_out[name] = str(error)
            else:
                places[name] = found.head_from_slices
                mean = mean.plus(subject, places[name])
            progress()
        if not places:
            whose, why = next(iter(left_out.items()))
            return f"no training head can be placed in the head frame; {whose}: {why}"
        return cls(recipe, mean, places, left_out)

    def draw(self, case: Case) -> NDArray[np.float32]:
        """Draw a case, (drawn, row, column), by the heads of others.

        Raises
        ------
        NotLocated
            The slices given cannot be placed in the head frame.
        """
        subject, mean = case.subject, self.mean
        place = located(case.source, case.positions_mm, subject.pixel_mm, self.recipe)
        if subject.name in self.places:
            mean = mean.minus(subject, self.places[subject.name])
        return mean.drawn(case, place.head_from_slices)
