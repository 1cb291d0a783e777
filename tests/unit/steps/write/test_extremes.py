"""Volumes and names at the edge of what may come still give valid objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.support.validators import dciodvfy_errors

SOURCE = head_ct(
    rows=16, columns=16, pixel_spacing_mm=(14.0, 14.0), slice_distances_mm=(0.0, 12.0, 24.0)
)
VOLUME = synthetic_volume(SOURCE)

CASES = {
    "no head": (replace(VOLUME, head=np.zeros_like(VOLUME.head)), provenance()),
    "one slice": (
        replace(
            VOLUME,
            intensity=VOLUME.intensity[:1],
            uncertainty=VOLUME.uncertainty[:1],
            head=VOLUME.head[:1],
            guides=VOLUME.guides[:1],
        ),
        provenance(),
    ),
    "long and foreign names": (
        VOLUME,
        provenance(
            bundle_name="é" * 100, bundle_version="v\\1", software_version="1" * 80,
            engine_identity="x\\y" * 40,
        ),
    ),
    "intensity out of range": (replace(VOLUME, intensity=VOLUME.intensity * 3 - 1), provenance()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_objects_are_valid_also_for(case, tmp_path):
    volume, made_by = CASES[case]
    derived = write(volume, SOURCE, made_by, (), ObjectOptions())
    for instance in {instance.kind: instance for instance in derived.instances}.values():
        assert dciodvfy_errors(instance.content, tmp_path) == []
