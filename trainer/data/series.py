"""Series of a prepared subject as a node would have them: thick or far apart, on the model grid."""

from typing import Final

import numpy as np

from rebrain_node.domain.volume import AIR_HU, Grid, PreparedVolume, Target
from rebrain_node.model.recipe import Recipe, Window
from trainer.data.dataset import SourceKind, Subject, Volume
from trainer.data.placing import Placement, levelled_hu, levelled_window, unit
from trainer.data.protocols import FACTORS, Case, Sparsity

#: usual distance of the slices of a head CT, mm
USUAL_MM: Final = 5.0
#: slices at least so far apart are taken as they are, mm
FAR_APART_MM: Final = 4.0


def spacing_mm(subject: Subject) -> float:
    """Return the usual distance of neighbouring slices."""
    return float(np.median(np.diff(subject.positions_mm)))


def usual_factor(subject: Subject) -> int:
    """Return how many slices are one of a usual head CT, nearest to 5 mm; 1: they are as they are.

    Two slices at least must remain.
    """
    step = spacing_mm(subject)
    possible = [k for k in FACTORS if len(subject.positions_mm) >= 2 * k]
    if step >= FAR_APART_MM or not possible:
        return 1
    return min(possible, key=lambda factor: abs(factor * step - USUAL_MM))


def usual_protocols(subject: Subject) -> tuple[Sparsity, ...]:
    """Return the protocols under which a dense subject is like a usual head CT.

    Slices of one or of many positions: the first has measured positions, the second the partial
    volume of thick slices.
    """
    factor = usual_factor(subject)
    if factor == 1:
        return (Sparsity("none"),)
    return Sparsity("decimate", factor), Sparsity("thick", factor)


def conditioned(recipe: Recipe, kind: SourceKind) -> Recipe:
    """Return the recipe by which a source of this kind is windowed.

    What is not in HU is given as levels of the brain window (`source_levels`); a wide window that
    begins where that ends shows them as the training does: unknown, -1.
    """
    if kind == "ct":
        return recipe
    high_hu = recipe.brain_window.high_hu
    unknown = Window(low_hu=high_hu, high_hu=high_hu + 1.0)
    return recipe.model_copy(update={"wide_window": unknown})


def source_levels(case: Case, kind: SourceKind, recipe: Recipe) -> Volume:
    """Return the slices given in HU, (given, row, column); else as levels of the brain window."""
    if kind == "ct":
        return levelled_hu(case, recipe)
    given = unit(case.source, case.head, kind, recipe)
    if kind == "ct-window":
        given = levelled_window(given, recipe)
    window = recipe.brain_window
    return np.asarray(window.low_hu + given * (window.high_hu - window.low_hu), dtype=np.float32)


def prepared_volume_of(
    case: Case, kind: SourceKind, placement: Placement, recipe: Recipe
) -> PreparedVolume:
    """Take the slices given as the node's own preprocessing leaves them."""
    first_mm = float(case.positions_mm[0])
    outside = float(AIR_HU) if kind == "ct" else recipe.brain_window.low_hu
    levels = source_levels(case, kind, recipe)
    head = np.stack([placement.onto(mask.astype(np.float32), 0.0) > 0.5 for mask in case.head])
    count = len(levels)
    steps = np.diff(case.positions_mm)
    return PreparedVolume(
        hu=np.stack([placement.onto(plane, outside) for plane in levels]),
        head=head,
        grid=Grid(
            origin_mm=np.zeros(3),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_mm=recipe.grid.pixel_mm,
            rows=recipe.grid.rows,
            columns=recipe.grid.columns,
        ),
        distances_mm=case.positions_mm - first_mm,
        thickness_mm=(float(np.median(steps)) if len(steps) else recipe.spacing_mm,) * count,
        targets=_targets(case, first_mm),
        spacing_mm=recipe.spacing_mm,
        sop_instance_uids=tuple(f"2.25.{k + 1}" for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="2.25.1",
    )


def _targets(case: Case, first_mm: float) -> tuple[Target, ...]:
    below, share = case.bracket()
    found = []
    for k, position in enumerate(case.targets_mm):
        nearest = int(np.argmin(np.abs(case.positions_mm - position)))
        low, high = int(below[k]), int(below[k]) + 1
        if case.measured[k]:
            low = high = nearest
        alpha = 0.0 if case.measured[k] else float(share[k])
        found.append(
            Target(distance_mm=float(position) - first_mm, below=low, above=high, alpha=alpha)
        )
    return tuple(found)
