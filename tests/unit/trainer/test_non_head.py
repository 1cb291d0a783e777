"""What is no sound head: each class is caught on the phantom by one of its codes."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.check import check_volume
from tests.support import phantom_conditions as conditions
from tests.support.phantoms import Ellipsoid
from trainer.simulate.non_head import OUTSIDE

SINUS = Ellipsoid((0.0, -66.0, -42.0), (14.0, 14.0, 14.0), -1000.0)


@pytest.mark.hazard("H13")
@pytest.mark.parametrize("name", OUTSIDE)
def test_each_class_is_caught_by_one_of_its_codes(name):
    places = tuple(-52.0 + 6.0 * k for k in range(24))
    head = conditions.changed(parts=(SINUS,), slice_distances_mm=places)
    for seed in range(3):
        changed = OUTSIDE[name].change(head, np.random.default_rng(seed))
        found = {finding.code for finding in check_volume(changed, shipped_limits())}
        assert found & OUTSIDE[name].codes, (seed, found)
        assert np.isfinite(changed.hu).all()
        assert changed.hu.shape == head.hu.shape
