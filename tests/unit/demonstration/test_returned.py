"""What comes back from the archive, as a volume: every slice of picture and map in its place."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from rebrain_node.demonstration.returned import volume_of
from rebrain_node.steps.write import ObjectOptions, write
from tests.support import phantoms
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.support.tiny_bundle import tiny_recipe


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_map_comes_back_in_the_order_of_its_slices(mr, shuffled):
    source = phantoms.head_ct(slice_distances_mm=(-18.0, -6.0, 6.0, 18.0))
    drawn = synthetic_volume(source)
    ramp = np.linspace(0.1, 0.9, len(drawn.guides), dtype=np.float32)[:, None, None]
    drawn = replace(drawn, uncertainty=np.broadcast_to(ramp, drawn.uncertainty.shape).copy())
    written = write(drawn, source, provenance(), (), ObjectOptions(mr=mr))
    derived = [dcmread(BytesIO(instance.content)) for instance in written.instances]
    if shuffled:
        derived = [derived[k] for k in np.random.default_rng(0).permutation(len(derived))]

    back = volume_of(source, derived, tiny_recipe())

    np.testing.assert_allclose(back.uncertainty, drawn.uncertainty, atol=1e-4)
    np.testing.assert_allclose(back.intensity, drawn.intensity, atol=1e-3)
    assert [guide.kind for guide in back.guides] == [guide.kind for guide in drawn.guides]
