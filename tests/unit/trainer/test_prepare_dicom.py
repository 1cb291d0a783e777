"""Paired DICOM: the source is kept, the target is brought onto it, and a wrong fit is refused."""

import json

import numpy as np
import pytest
from pydicom.uid import MRImageStorage, generate_uid
from typer.testing import CliRunner

from rebrain_node.steps.assemble import assemble
from tests.phantoms import PhantomSpec, head_ct, write
from trainer.cli import program
from trainer.dataset import PreparedData

COARSE = {"rows": 64, "columns": 64, "pixel_spacing_mm": (4.0, 4.0), "table": False}


def _brightness(hu):
    levels = [-1000, -200, -90, 5, 20, 29, 38, 60, 400, 1200]
    return np.interp(hu, levels, [0, 0, 900, 100, 150, 600, 400, 380, 40, 20])


def _mr(**changes):
    """Draw the head of the CT phantom as an MR: other brightness, another place, its own series."""
    distances = tuple(-100.0 + 4.0 * k for k in range(52))
    instances = head_ct(PhantomSpec(**COARSE, slice_distances_mm=distances, **changes))
    series = generate_uid()
    for instance in instances:
        hu = instance.pixel_array * float(instance.RescaleSlope) + float(instance.RescaleIntercept)
        instance.PixelData = _brightness(hu).astype(np.int16).tobytes()
        del instance.RescaleSlope, instance.RescaleIntercept
        instance.Modality, instance.SeriesInstanceUID = "MR", series
        instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = MRImageStorage
    return instances


def _subject(folder, ct, mr):
    write(ct, folder / "p1" / "ct")
    write(mr, folder / "p1" / "mr")


def _run(*arguments):
    result = CliRunner().invoke(
        program, ["prepare", "dicom", *map(str, arguments), "--source-kind", "ct", "--json"]
    )
    return result.exit_code, json.loads(result.stdout)


def test_a_displaced_target_is_brought_onto_a_tilted_source_that_stays_as_measured(tmp_path):
    ct = head_ct(PhantomSpec(**COARSE, gantry_tilt_deg=12.0))
    _subject(tmp_path / "in", ct, _mr(offset_mm=(9.0, -7.0, 11.0)))

    code, _ = _run(tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")
    subject = PreparedData.open(tmp_path / "out").subject("p1")
    meta = json.loads((tmp_path / "out" / "p1" / "meta.json").read_text())

    assert code == 0
    measured = assemble(ct)
    np.testing.assert_array_equal(subject.source, np.round(measured.hu))
    assert np.diff(subject.positions_mm) == pytest.approx(np.diff(measured.distances_mm))
    assert "registered rigidly" in meta["notes"][0]
    assert "tilt 12.0 degrees" in meta["notes"][2]
    brain = subject.mask & (subject.source > 0) & (subject.source < 60)
    same = np.corrcoef(subject.target[brain], _brightness(subject.source[brain]))[0, 1]
    displaced = np.corrcoef(
        np.roll(subject.target, 2, 1)[brain], _brightness(subject.source[brain])
    )[0, 1]
    assert same > 0.8 > displaced


def test_noise_as_a_target_is_refused_because_the_registration_is_not_to_be_trusted(tmp_path):
    mr, rng = _mr(), np.random.default_rng(0)
    for instance in mr:
        instance.PixelData = rng.integers(0, 900, (64, 64)).astype(np.int16).tobytes()
    _subject(tmp_path / "in", head_ct(PhantomSpec(**COARSE)), mr)

    code, document = _run(tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert "p1/mr: " in document["refused"]["p1"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: [p.unlink() for p in (f / "mr").iterdir()], "mr must hold one MR series"),
        (lambda f: (f / "mr").rename(f / "other"), "one of them named target or mr or t1"),
        (lambda f: (f / "ct" / "x.dcm").write_bytes(b"none"), r"x.dcm is no DICOM instance"),
        (lambda f: [p.unlink() for p in sorted((f / "ct").iterdir())[1:]], "ct has one slice"),
        (lambda f: sorted((f / "mr").iterdir())[20].unlink(), "mr: the slices lie uneven"),
    ],
)
def test_a_series_that_is_unfit_is_refused_with_its_folder(tmp_path, damage, words):
    _subject(tmp_path / "in", head_ct(PhantomSpec(**COARSE)), _mr())
    damage(tmp_path / "in" / "p1")

    code, document = _run(tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert words in document["refused"]["p1"]
