"""Pairs of DICOM series, and heads known by their maps, become subjects of a data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import MRImageStorage, generate_uid
from scipy import ndimage
from typer.testing import CliRunner, Result

from rebrain_node.steps.assemble import assemble
from tests.support.ball_head import ball_maps
from tests.support.geometry_cases import GEOMETRY
from tests.support.phantoms import PhantomSpec, head_ct, write
from trainer.cli import program
from trainer.data import simulated
from trainer.data.dataset import DatasetError, PreparedData
from trainer.data.dicom import register
from trainer.simulate.hounsfield import MOST_STRETCH

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


@pytest.mark.full
def test_a_displaced_target_is_brought_onto_a_tilted_source_that_stays_as_measured(tmp_path):
    ct = head_ct(PhantomSpec(**COARSE, gantry_tilt_deg=12.0))
    _subject(tmp_path / "in", ct, _mr(offset_mm=(9.0, -7.0, 11.0)))

    code, _ = _run(tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")
    subject = PreparedData.open(tmp_path / "out").subject("p1")
    meta = json.loads((tmp_path / "out" / "p1" / "meta.json").read_text())

    assert code == 0
    measured = assemble(ct, GEOMETRY)
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


@pytest.mark.full
def test_noise_as_a_target_is_refused_because_the_registration_is_not_to_be_trusted(tmp_path):
    mr, rng = _mr(), np.random.default_rng(0)
    for instance in mr:
        instance.PixelData = rng.integers(0, 900, (64, 64)).astype(np.int16).tobytes()
    _subject(tmp_path / "in", head_ct(PhantomSpec(**COARSE)), mr)

    code, document = _run(tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert "p1/mr: " in document["refused"]["p1"]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    _subject(folder, head_ct(PhantomSpec(**COARSE)), _mr())
    return folder


def _block(origin_mm, seed):
    """Draw one asymmetric head, its MR brightness or CT, at 6 mm; return image and head."""
    places = 6.0 * np.stack(np.meshgrid(*[np.arange(-16, 17)] * 3, indexing="ij"), -1)
    z, y, x = np.moveaxis(places + origin_mm[::-1], -1, 0)
    shown = (z / 80) ** 2 + (y / 85) ** 2 + (x / 65) ** 2 < 1
    part = shown & (x > 10) & (y < 20) & (z > 0)
    other = shown & (y > 40) & (z < 10)
    levels = ((0, 200, 40, 120), (-1000, 40, 900, 300))[seed]
    sharp = np.select([part, other, shown], levels[1:], levels[0]).astype(np.float32)
    array = ndimage.gaussian_filter(sharp, 1.0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((6.0, 6.0, 6.0))
    return image, shown


def test_a_known_displacement_is_found_to_a_millimetre():
    (source, own), (target, other) = _block((0, 0, 0), 1), _block((7.0, -5.0, 4.0), 0)

    found = register(source, target, (own, other))

    centre = (96.0, 96.0, 96.0)
    moved = np.subtract(found.transform.TransformPoint(centre), centre)
    np.testing.assert_allclose(moved, (-7.0, 5.0, -4.0), atol=1.0)
    assert found.overlap > 0.95
    assert found.residual_mm < 2.0


def test_noise_is_never_registered():
    source, own = _block((0, 0, 0), 1)
    noise = np.random.default_rng(0).normal(300, 80, own.shape).astype(np.float32)
    target = sitk.GetImageFromArray(noise)
    target.SetSpacing(source.GetSpacing())

    with pytest.raises(DatasetError, match="registration"):
        register(source, target, (own, own))


def _cut(path, size=4000):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: [p.unlink() for p in (f / "mr").iterdir()], "mr must hold one MR series"),
        (lambda f: (f / "mr").rename(f / "other"), "one of them named target or mr or t1"),
        (lambda f: (f / "ct" / "x.dcm").write_bytes(b"none"), r"x.dcm is no DICOM instance"),
        (lambda f: _cut(sorted((f / "ct").iterdir())[3]), "ct: PIXEL-DATA"),
        (lambda f: _cut(sorted((f / "ct").iterdir())[3], 300), "CT series; it holds CT ("),
        (lambda f: [p.unlink() for p in sorted((f / "ct").iterdir())[1:]], "ct has one slice"),
        (lambda f: sorted((f / "mr").iterdir())[20].unlink(), "mr: the slices lie uneven"),
    ],
)
def test_a_series_that_is_unfit_is_refused_with_its_folder(sound, tmp_path, damage, words):
    shutil.copytree(sound, tmp_path / "in")
    damage(tmp_path / "in" / "p1")

    code, document = _run(tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert words in document["refused"]["p1"]


def prepared(source: Path, out: Path, *more: str) -> Result:
    arguments = ["prepare", "maps", str(source), "--out", str(out), "--json", *more]
    return CliRunner().invoke(program, arguments)


def test_every_head_has_the_role_of_the_catalogue(tmp_path: Path) -> None:
    for name in ("colin27", "sub21", "sub01", "t1w_biolab", "sub02.part"):
        (tmp_path / f"{name}.npz").touch()

    found = {head.name: head for head in simulated.find(tmp_path)}

    roles = {name: head.role for name, head in found.items() if head.problem is None}
    assert roles == {"colin27": "test", "sub21": "test", "sub01": "train"}
    assert "no truth outside the brain" in str(found["t1w_biolab"].problem)
    with pytest.raises(DatasetError, match="is no folder"):
        simulated.find(tmp_path / "nowhere")


def test_a_head_is_scanned_and_one_whose_fit_went_astray_is_refused(tmp_path: Path) -> None:
    astray = ball_maps()
    astray["mni_z"] = np.clip(astray["mni_z"] * (MOST_STRETCH + 0.1), -125, 125).astype(np.int8)
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "colin27.npz", **ball_maps())
    np.savez(tmp_path / "maps" / "sub01.npz", **astray)
    (tmp_path / "maps" / "sub02.npz").write_bytes(b"PK no")

    result = prepared(tmp_path / "maps", tmp_path / "out")

    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    assert document["split"] == {"train": [], "validation": [], "test": ["colin27"]}
    assert "the fit failed" in document["refused"]["sub01"]
    assert "holds no maps" in document["refused"]["sub02"]
    data = PreparedData.open(tmp_path / "out")
    subject = data.subject("colin27")
    assert (data.source_kind, data.volumetric, subject.pixel_mm) == ("ct", True, (0.9, 0.9))
    np.testing.assert_allclose(np.diff(subject.positions_mm), 2.5)
    assert 15 < np.median(subject.source[subject.brain]) < 60
    assert (subject.source[subject.mask & ~subject.brain] > 500).mean() > 0.1  # the skull
    assert np.median(subject.source[~subject.mask]) < -950
    assert 0.4 < np.median(subject.target[subject.brain]) < 0.65  # canonical T1: grey and white
    notes = (tmp_path / "out" / "colin27" / "meta.json").read_text()
    assert "BSD-3-Clause" in notes


def test_who_trains_and_who_tests_is_not_to_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "sub01.npz").touch()

    result = prepared(tmp_path, tmp_path / "out", "--split", "1/0/0")

    assert "omit --split" in str(result.exception)
    assert not (tmp_path / "out").exists()
