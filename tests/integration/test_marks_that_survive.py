"""A synthetic image is known as such when its header is gone: by `verify`, and at the door."""

from __future__ import annotations

import gzip
import json
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from rebrain_node.cli import program
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import judge_study
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.unit.test_watermark import MARKED, PLAIN, grey

LIMITS = shipped_limits()


def stored(image):
    return np.rint(image * 4095).astype("<u2")


def disguised(image, modality="CT"):
    """A head CT whose every slice shows an image, as if a scanner had made it."""
    rows, columns = image.shape
    instances = head_ct(rows=4, columns=4, slice_distances_mm=tuple(6.0 * k for k in range(24)))
    for instance in instances:
        instance.Rows, instance.Columns = rows, columns
        instance.PixelSpacing = [0.9, 0.9]
        instance.PixelRepresentation = 0
        instance.PixelData = stored(image).tobytes()
        instance.Modality = modality
    return instances


def found_in(instances):
    with pytest.raises(SeriesRejectedError) as refused:
        check(assemble(instances, LIMITS.geometry), instances, LIMITS)
    return [finding.code for finding in refused.value.findings]


@pytest.mark.hazard("H6")
def test_a_synthetic_series_disguised_as_a_ct_is_refused_by_its_pixels():
    assert "SRC-WATERMARK" in found_in(disguised(MARKED))
    assert "SRC-WATERMARK" not in found_in(disguised(PLAIN))


@pytest.mark.hazard("H6")
def test_a_synthetic_series_disguised_as_an_mr_is_refused():
    selection = judge_study(disguised(MARKED, "MR"), LIMITS)
    assert "MODALITY" in {f.code for c in selection.candidates for f in c.findings}
    assert not selection.accepted


def verify(*paths):
    result = CliRunner().invoke(program, ["verify", *map(str, paths), "--json"])
    return result.exit_code, json.loads(result.stdout)["files"]


def written(**options):
    source = head_ct()
    volume = synthetic_volume(source, rows=64, columns=64)
    return write(volume, source, provenance(), (), ObjectOptions(**options)).instances


def test_each_object_of_a_set_says_which_bundle_and_set_it_is_of(tmp_path):
    made = provenance()
    for number, instance in enumerate(written()):
        (tmp_path / f"{number}.dcm").write_bytes(instance.content)
    code, files = verify(tmp_path)
    assert code == 0
    assert {each["verdict"] for each in files} == {"synthetic"}
    assert {each["set_digest"] for each in files} == {made.digest}
    assert {each["bundle_digest"] for each in files} == {made.bundle_digest}
    assert {each["bundle"] for each in files} == {f"{made.bundle_name} {made.bundle_version}"}


def nifti(path, volume):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, volume.ndim, *volume.shape, *[1] * (7 - volume.ndim))
    struct.pack_into("<2h", header, 70, 512, 16)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + volume.tobytes(order="F"), mtime=0))


def without_header(folder, image):
    """An image as DICOM whose header names a scanner, as NIfTI, PNG and JPEG."""
    (instance, *_) = disguised(image, "MR")
    instance.SOPInstanceUID = generate_uid()
    instance.save_as(folder / "a.dcm", enforce_file_format=True)
    nifti(folder / "b.nii.gz", np.stack([stored(image).T[:, ::-1]] * 3, axis=2))
    Image.fromarray(grey(image)).save(folder / "c.png")
    Image.fromarray(grey(image)).convert("RGB").save(folder / "d.jpg", quality=80)


@pytest.mark.hazard("H6")
def test_without_its_header_an_image_is_known_by_the_watermark(tmp_path):
    without_header(tmp_path, MARKED)
    code, files = verify(tmp_path)
    assert code == 0
    assert [each["verdict"] for each in files] == ["synthetic"] * 4
    assert all(each["marked"] == each["searched"] for each in files)


def test_where_nothing_is_found_nobody_is_told_that_the_image_was_acquired(tmp_path):
    without_header(tmp_path, PLAIN)
    code, files = verify(tmp_path)
    assert code == 3
    assert {each["verdict"] for each in files} == {"no mark found"}
    assert all("does not show that the image was acquired" in each["sentence"] for each in files)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.dcm", b"no DICOM"),
        ("b.png", b"no picture"),
        ("c.nii", b"no volume"),
        ("d.nii.gz", b"no gzip"),
        ("e.nii.gz", gzip.compress(bytes(400), mtime=0)[:-9]),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_counts_as_failed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    Image.fromarray(grey(MARKED)).save(tmp_path / "z.png")
    code, files = verify(tmp_path)
    assert code == 1
    assert [each["verdict"] for each in files] == ["unreadable", "synthetic"]


def test_of_an_object_without_grey_pixels_it_is_said_that_none_were_searched(tmp_path):
    (instance, *_) = disguised(PLAIN, "MR")
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 3, "RGB"
    instance.PlanarConfiguration = 0
    instance.PixelData = instance.PixelData * 3
    instance.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    code, (one,) = verify(tmp_path)
    assert (code, one["searched"]) == (3, 0)
    assert "no grey pixels" in one["sentence"]
    assert "watermark" not in one["sentence"]


def test_a_file_that_vanishes_or_cannot_be_opened_does_not_end_the_run(tmp_path, monkeypatch):
    without_header(tmp_path, PLAIN)
    listed = [tmp_path / "gone.dcm", tmp_path / "gone.nii.gz", tmp_path / "c.png"]
    monkeypatch.setattr("rebrain_node.app.origin.files_below", lambda _: listed)
    code, files = verify(tmp_path)
    assert code == 1
    assert [each["verdict"] for each in files] == ["unreadable"] * 2 + ["no mark found"]
    assert "No such file" in files[0]["sentence"]


def test_a_folder_without_files_is_a_mistake(tmp_path):
    result = CliRunner().invoke(program, ["verify", str(tmp_path)])
    assert result.exit_code == 2
    assert "no file" in result.output


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
def test_the_setting_decides_about_the_pixels_and_the_private_block(mr):
    on, off = (
        [dcmread(BytesIO(one.content)) for one in written(mr=mr, companions=(), watermark=wanted)]
        for wanted in (True, False)
    )
    assert [a.PixelData != b.PixelData for a, b in zip(on, off, strict=True)].count(True) > 0
    assert {a.SOPInstanceUID for a in on}.isdisjoint(b.SOPInstanceUID for b in off)
    assert "REBRAIN_1" in "".join(map(str, on))
    assert "REBRAIN_1" not in "".join(map(str, off)).replace("REBRAIN_NODE_1", "")
