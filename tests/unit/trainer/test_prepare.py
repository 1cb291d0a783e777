"""Preparing data: every layout arrives, what is unfit is refused, nothing is half done."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from trainer.cli import program
from trainer.data import split
from trainer.data.dataset import DatasetError, PreparedData, read_index
from trainer.data.layouts import LAYOUTS
from trainer.data.nifti import mirrored_axis

SIZE = (12, 40, 32)  # slices, rows, columns
SPACING = (5.0, 5.0, 12.0)  # columns, rows, slices, mm


def head(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw CT (HU), MR and mask, (slice, row, column) LPS; no two axes or sides look the same."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    radius = np.sqrt((z * 0.7) ** 2 + y**2 + x**2)
    inside, brain = radius < 0.85, radius < 0.7
    left = brain & (x > 0.1) & (y < 0.2) & (z > 0)
    nose = (np.abs(x) < 0.15) & (y < -0.6) & (z < 0) & (radius < 1)
    ct = np.select([left, brain, inside | nose], [5.0, 38.0, 900.0], -1000.0)
    mr = np.select([left, brain, inside | nose], [40.0, 200.0, 60.0], 0.0)
    noise = rng.normal(0, 1, (2, *SIZE))
    shown = inside | nose
    return np.round(ct + shown * noise[0]), mr + shown * np.abs(noise[1]), shown


def image_of(array: np.ndarray, degrees: float = 0.0) -> sitk.Image:
    """Return an image along LPS, turned about the left-right axis by so many degrees."""
    image = sitk.GetImageFromArray(np.asarray(array, np.float32))
    image.SetSpacing(SPACING)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    image.SetDirection([1, 0, 0, 0, cosine, -sine, 0, sine, cosine])
    image.SetOrigin((-80.0, -100.0, -60.0))
    return image


def save(array: np.ndarray, path: Path, degrees: float = 0.0, axes: str = "LPS") -> Path:
    """Write a NIfTI file with its axes stored in another order, at the same place in space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image_of(array, degrees), axes), str(path))
    return path


def synthrad(folder: Path, name: str, seed: int = 0, axes: str = "LPS") -> Path:
    """Write one subject in the layout of SynthRAD2023."""
    ct, mr, mask = head(seed)
    for what, array in (("ct", ct), ("mr", mr), ("mask", mask)):
        save(array, folder / name / f"{what}.nii.gz", axes=axes)
    return folder / name


def run(*arguments):
    """Call the command; return its exit code and its JSON document."""
    result = CliRunner().invoke(program, ["prepare", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_the_command_explains_itself_and_wants_the_kind_of_a_source_it_cannot_know(tmp_path):
    assert len(CliRunner().invoke(program, ["prepare", "--help"]).output) > 100
    result = CliRunner().invoke(program, ["prepare", "nifti", "x", "--out", str(tmp_path / "o")])

    assert result.exit_code == 2
    assert not (tmp_path / "o").exists()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "Task1" / "brain"
    for seed, name in enumerate(["1BA001", "1BA005", "1BB010"]):
        synthrad(folder, name, seed)
    (folder / "overview").mkdir()
    return tmp_path


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAL", "PIR"])
def test_synthrad_arrives_turned_right_whatever_the_axes_of_the_file(tmp_path, axes):
    synthrad(tmp_path / "in", "a", axes=axes)

    code, _ = run("synthrad", tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")
    subject = PreparedData.open(tmp_path / "out").subject("a")

    ct, mr, mask = head()
    assert code == 0
    np.testing.assert_array_equal(subject.source, ct)
    np.testing.assert_allclose(subject.target, mr, atol=1e-3)
    np.testing.assert_array_equal(subject.mask, mask)
    np.testing.assert_allclose(subject.positions_mm, -60 + 12 * np.arange(12))
    assert subject.pixel_mm == (5.0, 5.0)


def test_a_second_run_keeps_what_is_finished_and_the_split(source, tmp_path):
    code, first = run("synthrad", source, "--out", tmp_path / "out", "--seed", 3)
    synthrad(source / "Task1" / "brain", "1BC099", 9)
    (tmp_path / "out" / "1BA005" / "target.npy").write_bytes(b"altered")
    (tmp_path / "out" / ".1BB010.part").mkdir()

    again, second = run("synthrad", source, "--out", tmp_path / "out")

    assert (code, again) == (0, 0)
    assert {k: len(v) for k, v in first["split"].items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    assert second["kept"] == ["1BA001", "1BB010"]
    assert second["prepared"] == ["1BA005", "1BC099"]
    assert all(set(first["split"][role]) <= set(second["split"][role]) for role in first["split"])
    assert read_index(tmp_path / "out").seed == 3
    PreparedData.open(tmp_path / "out")


def _change(path, change):
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(change(sitk.GetArrayFromImage(image)), str(path))


def _nan(array):
    array[3, 3, 3] = np.nan
    return image_of(array)


def _unoriented(folder):
    path = folder / "mr.nii.gz"
    plain = path.with_name("mr.nii")
    sitk.WriteImage(sitk.ReadImage(str(path)), str(plain))
    content = bytearray(plain.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    plain.write_bytes(content)


def _cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _cut_uncompressed(folder):
    path = folder / "mr.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)), str(folder / "mr.nii"))
    _cut(folder / "mr.nii")


def _alter(path):
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # the checksum
    path.write_bytes(bytes(content))


BAD = {
    "missing mask": (lambda f: (f / "mask.nii.gz").unlink(), r"mask\.nii\.gz is missing"),
    "empty subject": (lambda f: [p.unlink() for p in f.iterdir()], r"ct\.nii\.gz is missing"),
    "other size": (
        lambda f: _change(f / "mr.nii.gz", lambda a: image_of(a[:, 1:])),
        r"mr\.nii\.gz has the size",
    ),
    "shifted": (
        lambda f: save(head()[1], f / "mr.nii.gz", degrees=1),
        r"mr\.nii\.gz lies .* mm from",
    ),
    "NaN": (lambda f: _change(f / "mr.nii.gz", _nan), r"mr\.nii\.gz has 1 voxels that are NaN"),
    "one slice": (
        lambda f: [_change(p, lambda a: image_of(a[:1])) for p in sorted(f.iterdir())],
        r"ct\.nii\.gz .*one slice",
    ),
    "4-D": (
        lambda f: _change(f / "mr.nii.gz", lambda a: sitk.JoinSeries([image_of(a), image_of(a)])),
        r"mr\.nii\.gz .*4-D",
    ),
    "constant": (
        lambda f: _change(f / "mr.nii.gz", lambda a: image_of(a * 0)),
        r"mr\.nii\.gz is 0 everywhere",
    ),
    "no head in the mask": (
        lambda f: _change(f / "mask.nii.gz", lambda a: image_of(a * 0)),
        "mask of the head is empty",
    ),
    "not HU": (
        lambda f: _change(f / "ct.nii.gz", lambda a: image_of(a + 1024)),
        r"ct\.nii\.gz has no value below",
    ),
    "damaged": (lambda f: (f / "ct.nii.gz").write_bytes(b"no image"), r"ct\.nii\.gz cannot be"),
    "cut off": (lambda f: _cut(f / "mr.nii.gz"), r"mr\.nii\.gz is damaged: .*end"),
    "cut off, not compressed": (_cut_uncompressed, r"mr\.nii is cut off: \d+ of \d+ bytes"),
    "other bytes": (lambda f: _alter(f / "ct.nii.gz"), r"ct\.nii\.gz (is damaged|cannot be read)"),
    "no orientation": (_unoriented, r"mr\.nii does not say how the head lies"),
    "mirrored": (
        lambda f: _change(f / "mr.nii.gz", lambda a: image_of(a[::-1])),
        r"mr\.nii\.gz fits .* mirrored along its slices",
    ),
    "upside down": (
        lambda f: _change(f / "mr.nii.gz", lambda a: image_of(a[:, ::-1])),
        r"mr\.nii\.gz fits .* mirrored along its rows",
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_an_unfit_subject_is_refused_with_file_and_reason_and_leaves_nothing(tmp_path, damage):
    change, words = BAD[damage]
    change(synthrad(tmp_path / "in", "bad"))
    synthrad(tmp_path / "in", "good", seed=1)

    code, document = run("synthrad", tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")

    assert code == 1
    assert document["prepared"] == ["good"]
    assert re.search(words, document["refused"]["bad"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dataset.json", "good"]


@pytest.mark.parametrize(
    ("layout", "given", "right"),
    [
        ("synthrad", "", "Task1/brain"),  # found below by itself
        ("synthrad", "Task1", "Task1/brain"),
        ("synthrad", "Task1/brain/1BA001", "Task1/brain"),
        ("brats", "Task1/brain", "Task1/brain"),
    ],
)
def test_another_folder_or_layout_is_named_where_that_would_be_right(
    source, tmp_path_factory, layout, given, right
):
    out = tmp_path_factory.mktemp("out") / "o"
    if not given:
        assert run(layout, source, "--out", out)[0] == 0
        return
    with pytest.raises(DatasetError) as refusal:
        run(layout, (source / given).resolve(), "--out", out)

    assert f"holds no subject in the layout {layout}, expected SOURCE/" in str(refusal.value)
    assert f"{(source / right).resolve()} holds subjects of the layout synthrad" in str(
        refusal.value
    )
    assert not out.exists()


def test_what_a_library_raises_on_one_subject_does_not_end_the_others(tmp_path, monkeypatch):
    for name in ("bad", "good"):
        synthrad(tmp_path / "in", name, seed=len(name))
    read = LAYOUTS["synthrad"].read

    def reads(found, kind):
        if found.name == "bad":
            raise IndexError("list index\nout of range")
        return read(found, kind)

    monkeypatch.setitem(LAYOUTS, "synthrad", dataclasses.replace(LAYOUTS["synthrad"], read=reads))

    code, document = run("synthrad", tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")

    assert (code, document["prepared"]) == (1, ["good"])
    assert re.search(r"bad/ct\.nii\.gz.* IndexError: list index out", document["refused"]["bad"])


def test_where_everybody_is_refused_nothing_is_written(tmp_path):
    (synthrad(tmp_path / "in", "bad") / "mr.nii.gz").unlink()

    code, _ = run("synthrad", tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert not (tmp_path / "out").exists()


def test_one_head_under_two_names_is_refused(tmp_path):
    synthrad(tmp_path / "in", "a")
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "b")

    code, document = run("synthrad", tmp_path / "in", "--out", tmp_path / "out")

    assert code == 1
    assert "same target" in document["refused"]["b"]


def _brats(folder, endings, seed=0):
    _, mr, mask = head(seed)
    for ending, array in zip(endings, (500 - mr, mr), strict=True):
        save(array * mask, folder / f"{folder.name}{ending}.nii.gz")


@pytest.mark.parametrize("endings", [("_flair", "_t1"), ("-t2f", "-t1n")])
def test_brats_takes_flair_to_t1_and_what_is_not_background_is_brain(tmp_path, endings):
    _brats(tmp_path / "in" / "BraTS-1", endings)

    run("brats", tmp_path / "in", "--out", tmp_path / "out", "--split", "0/0/1")
    subject = PreparedData.open(tmp_path / "out").subject("BraTS-1")

    np.testing.assert_array_equal(subject.brain, head()[2])
    assert subject.source[6, 20, 8] > subject.target[6, 20, 8] > 0


def test_a_subject_of_two_grades_is_refused_as_a_duplicate(tmp_path):
    _brats(tmp_path / "in" / "HGG" / "x", ("_flair", "_t1"))
    _brats(tmp_path / "in" / "LGG" / "x", ("_flair", "_t1"))

    code, document = run("brats", tmp_path / "in", "--out", tmp_path / "out")

    assert code == 3
    assert "subject x occurs 2 times" in document["refused"]["x"]


def test_a_table_and_two_folders_give_the_same_volumes(tmp_path):
    ct, mr, _ = head()
    save(ct, tmp_path / "in" / "source" / "a.nii.gz")
    save(mr, tmp_path / "in" / "target" / "a.nii.gz")
    table = tmp_path / "in" / "table.csv"
    table.write_text("subject,source,target\nz,source/a.nii.gz,target/a.nii.gz\n")

    for given, out in ((table, "one"), (tmp_path / "in", "two")):
        run("nifti", given, "--source-kind", "ct", "--out", tmp_path / out, "--split", "1/0/0")
    first = PreparedData.open(tmp_path / "one").subject("z")
    second = PreparedData.open(tmp_path / "two").subject("a")

    np.testing.assert_array_equal(first.source, second.source)
    overlap = (first.mask & head()[2]).sum() / head()[2].sum()
    assert overlap > 0.9


def test_an_oblique_head_is_resampled_and_the_notes_say_so(tmp_path):
    for what, array in zip(("ct", "mr", "mask"), head(), strict=True):
        save(array, tmp_path / "in" / "a" / f"{what}.nii.gz", degrees=25)

    run("synthrad", tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/0")

    notes = json.loads((tmp_path / "out" / "a" / "meta.json").read_text())["notes"]
    assert "leant 25.0 degrees" in notes[0]


def test_another_split_for_the_same_folder_is_refused(source, tmp_path):
    run("synthrad", source, "--out", tmp_path / "out")

    with pytest.raises(DatasetError, match="a split is kept"):
        run("synthrad", source, "--out", tmp_path / "out", "--split", "1/1/1")


def test_a_split_file_with_a_subject_in_two_roles_is_refused_with_its_name(source, tmp_path):
    given = tmp_path / "split.json"
    given.write_text(json.dumps({"train": ["1BA001", "1BA005"], "test": ["1BA005", "1BB010"]}))

    with pytest.raises(DatasetError, match="subject 1BA005 has the roles train and test"):
        run("synthrad", source, "--out", tmp_path / "out", "--split", given)

    assert not (tmp_path / "out" / "dataset.json").exists()


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(DatasetError, match="needs 20 subjects, 3 are usable"):
        split.assign(["a", "b", "c"], "14/3/3", 0, {})


@pytest.mark.parametrize("rule", ["14/3/3", "0.7/0.15/0.15"])
def test_twenty_subjects_split_14_3_3_and_no_one_twice(rule):
    names = [f"s{k}" for k in range(20)]

    made = split.assign(names, rule, 1, {})

    assert [len(group) for group in made.values()] == [14, 3, 3]
    assert sorted(n for group in made.values() for n in group) == sorted(names)


def test_noise_is_not_called_mirrored():
    rng = np.random.default_rng(0)

    assert mirrored_axis(*rng.normal(size=(2, 20, 40, 40)).astype(np.float32)) is None


def test_the_flair_t1_pairs_are_prepared(shared_data, tmp_path):
    (tmp_path / "in").mkdir()
    for path in sorted((shared_data / "t1_flair_2mm").glob("sub0[12]_*")):
        (tmp_path / "in" / path.name).symlink_to(path)

    code, _ = run("flair-t1", tmp_path / "in", "--out", tmp_path / "out", "--split", "1/0/1")
    subject = PreparedData.open(tmp_path / "out").subject("sub01")

    assert code == 0
    assert subject.source.shape == (87, 110, 110)
    assert 0.2 < subject.mask.mean() < 0.6


def test_the_archive_of_pairs_becomes_a_test_set(shared_data, tmp_path):
    code, document = run(
        "archive", shared_data / "ct_t1_pairs_7patients.npz", "--out", tmp_path / "out"
    )

    assert code == 0
    assert document["split"]["test"] == ["1", "3", "4", "6", "7", "8", "9"]
    assert not PreparedData.open(tmp_path / "out").volumetric
