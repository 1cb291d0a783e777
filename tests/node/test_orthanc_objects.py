"""An archive keeps the written objects as they are, and reads names and pixels as we do."""

from __future__ import annotations

import urllib.request
from io import BytesIO

import numpy as np
import pydicom

from rebrain_node.steps.write import AuditAnchor, ObjectOptions, write
from tests.node.test_orthanc import Orthanc, pytestmark
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume

__all__ = ["pytestmark"]  # skips where there is no Orthanc

SOURCE = {
    "rows": 16,
    "columns": 16,
    "pixel_spacing_mm": (14.0, 14.0),
    "slice_distances_mm": (-12.0, 0.0, 12.0),
    "gantry_tilt_deg": 10.5,
}
NAMES = {
    "P-JP": ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "P-KR": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "P-GR": ("ISO_IR 126", "Διονυσιος"),
    "P-CN": ("GB18030", "Wang^XiaoDong=王^小东"),
    "P-UTF": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
}

ENHANCED = ("P-GR", "P-CN")  #: their MR is one of many frames


def file_of(orthanc: Orthanc, instance: str) -> bytes:
    with urllib.request.urlopen(f"{orthanc.url}/instances/{instance}/file", timeout=20) as answer:
        return answer.read()


def put(orthanc: Orthanc, content: bytes) -> None:
    request = urllib.request.Request(f"{orthanc.url}/instances", data=content, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def test_what_orthanc_gives_back_is_what_was_written(tmp_path):
    written = {}
    for patient, (character_set, name) in NAMES.items():
        source = head_ct(
            **SOURCE, patient_id=patient, character_set=character_set, patient_name=name
        )
        form = "enhanced" if patient in ENHANCED else "classic"
        options = ObjectOptions(mr=form)
        anchor = AuditAnchor(sequence=1, sha256="a" * 64)
        made_by = provenance(source_series_uid=source[0].SeriesInstanceUID)
        volume = synthetic_volume(source)
        for instance in write(volume, source, made_by, (), options, anchor).instances:
            written[instance.sop_instance_uid] = instance
    with Orthanc(tmp_path / "orthanc", node_port=1).running() as orthanc:
        for instance in written.values():
            put(orthanc, instance.content)
        kept = orthanc.get("/instances")
        assert len(kept) == len(written)
        for identifier in kept:
            back = pydicom.dcmread(BytesIO(file_of(orthanc, identifier)))
            sent = pydicom.dcmread(BytesIO(written[back.SOPInstanceUID].content))
            assert back == sent
            if "PixelData" in sent:
                assert np.array_equal(back.pixel_array, sent.pixel_array)
        tags = [orthanc.get(f"/patients/{p}")["MainDicomTags"] for p in orthanc.get("/patients")]
    shown = {tag["PatientID"]: tag["PatientName"] for tag in tags}
    assert {patient: shown[patient].split("=")[0] for patient in NAMES} == {
        patient: name.split("=")[0] for patient, (_, name) in NAMES.items()
    }
