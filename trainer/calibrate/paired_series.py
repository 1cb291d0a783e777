"""Series of prepared pairs, with the true MR of every position."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rebrain_node.domain.volume import FloatArray, Grid, MaskArray, PreparedVolume
from rebrain_node.model.recipe import Recipe
from trainer.data.dataset import PreparedData, SourceKind, Volume
from trainer.data.placing import Placement, placements, truth_unit
from trainer.data.protocols import Case, thinned
from trainer.data.series import prepared_volume_of, usual_protocols


@dataclass(frozen=True)
class PairedSeries:
    """One subject under one protocol, on the grid of a recipe."""

    case: Case
    kind: SourceKind
    placement: Placement
    t1: Volume  #: (slice, row, column) of the subject, true MR, 0 to 1

    def prepared(self, recipe: Recipe) -> PreparedVolume:
        """Return the series as the preprocessing of the node leaves it."""
        return prepared_volume_of(self.case, self.kind, self.placement, recipe)

    def truth(
        self,
        grid: Grid,  # noqa: ARG002 -- the placement is on it
        distance_mm: float,
        spacing_mm: float,  # noqa: ARG002 -- the slices of the data set are the synthetic ones
    ) -> tuple[FloatArray, MaskArray]:
        """Return the true MR of one synthetic slice, and where it is known; (rows, columns)."""
        subject = self.case.subject
        distances = subject.positions_mm - self.case.positions_mm[0]
        row = int(np.argmin(np.abs(distances - distance_mm)))
        known = self.placement.onto(subject.mask[row].astype(np.float32), 0.0) > 0.5
        return self.placement.onto(self.t1[row], 0.0), known


def paired_series(data: PreparedData, name: str, recipe: Recipe) -> Iterator[PairedSeries]:
    """Yield the series of a subject, the slices 5 mm apart where it is dense enough."""
    subject = data.subject(name)
    placement = placements(subject.mask, subject.pixel_mm, recipe)[0]
    t1 = truth_unit(subject.target, subject.mask)
    for protocol in usual_protocols(subject):
        yield PairedSeries(thinned(subject, protocol), data.source_kind, placement, t1)
