"""Prepared subjects as series of a node: how far apart, and windowed as in training."""

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.model.source import windowed
from tests.support.ball_head import ball_subject
from tests.support.tiny_bundle import tiny_recipe
from trainer.data.dataset import SourceKind
from trainer.data.placing import placements, source_slices
from trainer.data.protocols import Sparsity, thinned
from trainer.data.series import conditioned, prepared_volume_of, usual_factor, usual_protocols


@pytest.mark.parametrize(
    ("step_mm", "slices", "factor"),
    [
        (1.0, 40, 4),
        (2.0, 40, 2),
        (2.5, 40, 2),
        (3.0, 40, 2),
        (5.0, 40, 1),
        (1.0, 5, 2),
        (1.0, 3, 1),
    ],
)
def test_dense_slices_are_thinned_to_about_five_millimetres(
    step_mm: float, slices: int, factor: int
) -> None:
    subject = replace(
        ball_subject("a", (slices, 24, 20)), positions_mm=step_mm * np.arange(float(slices))
    )

    assert usual_factor(subject) == factor
    thin = (Sparsity("decimate", factor), Sparsity("thick", factor))
    assert usual_protocols(subject) == (thin if factor > 1 else (Sparsity("none"),))


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_a_series_is_windowed_as_in_training(kind: SourceKind) -> None:
    recipe = tiny_recipe()
    case = thinned(ball_subject("a"), Sparsity("decimate", 2))
    placement = placements(case.head, case.subject.pixel_mm, recipe)[0]

    prepared = prepared_volume_of(case, kind, placement, recipe)

    expected = source_slices(case, kind, recipe, placement)
    for hu, slice_ in zip(prepared.hu, expected, strict=True):
        found = windowed(hu, slice_.position_mm, conditioned(recipe, kind))
        np.testing.assert_allclose(found.brain, slice_.brain, atol=1e-5)
        np.testing.assert_allclose(found.wide, slice_.wide, atol=1e-5)
    assert [target.distance_mm for target in prepared.targets] == [
        2.0 * k for k in range(len(prepared.targets))
    ]
