"""Objects are encoded as pydicom encodes them."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread, dcmwrite

from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

NAMES = {
    "Japanese": (r"\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Latin": ("ISO_IR 100", "Äther^Zoë"),
    "none": (None, "PLAIN^NAME"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mr", ["classic", "enhanced"])
def test_every_object_has_the_bytes_that_pydicom_writes(name, mr):
    character_set, patient_name = NAMES[name]
    source = head_ct(rows=24, columns=24, character_set=character_set, patient_name=patient_name)
    derived = write(
        synthetic_volume(source), source, provenance(), (), ObjectOptions(mr=mr, ink="corner")
    )
    for instance in derived.instances:
        dataset = dcmread(BytesIO(instance.content))
        decoded = [element.value for element in dataset.iterall()]
        again = BytesIO()
        dcmwrite(again, dataset, enforce_file_format=True)
        assert decoded
        assert again.getvalue() == instance.content, instance.kind
