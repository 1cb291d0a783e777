"""`process` and `demo`: a folder in, a folder out; what is no head CT is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from tests.support import phantoms
from tests.support.quick_node import quick_study, run


def process(study, out, bundle_folder, *options):
    """Run `process --json`; its exit code, its answer and its standard error."""
    result = run("process", study, "--out", out, "--json", *options, bundle_folder=bundle_folder)
    return result.returncode, json.loads(result.stdout), result.stderr


@pytest.fixture(scope="module")
def processed(study_folder, quick_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, *process(study_folder, out, quick_bundle, "--explain")


def test_a_head_ct_gives_one_object_a_slice_and_the_answer_others_read(processed):
    out, code, answer, _ = processed
    assert code == 0
    (series,) = answer["series"]
    assert series["decision"] == "accepted"
    assert {"series_instance_uid", "description", "codes", "sentence"} <= series.keys()
    assert sorted(map(str, out.glob("*.dcm"))) == sorted(answer["outputs"])
    images = [d for p in answer["outputs"] if (d := dcmread(p)).SOPClassUID == MRImageStorage]
    assert len(images) == len(answer["slices"])
    assert {row["kind"] for row in answer["slices"]} <= {"measured", "retrieved", "interpolated"}
    positions = [row["position_mm"] for row in answer["slices"]]
    assert positions[0] == 0.0
    assert np.all(np.diff(positions) > 0.0)
    facts = {"alpha", "reason", "similarity", "tau", "exemplar", "position_difference_mm"}
    assert facts | {"registration"} <= answer["slices"][0].keys()
    assert answer["seconds"] > 0.0
    assert answer["engine"].startswith("openvino")
    assert len(answer["bundle_digest"]) == 64
    level = series["tissue_level"]
    assert level["expected_hu"] == 33.0
    assert level["shift_hu"] == pytest.approx(33.0 - level["measured_hu"], abs=0.02)
    block = images[0].private_block(0x0071, "REBRAIN NODE 1")
    assert block[0x0F].value == pytest.approx(level["shift_hu"], abs=0.01)
    assert answer["peak_memory_bytes"] <= 4_000_000_000


def test_explain_prints_the_ranking_and_what_was_seen(processed):
    *_, answer, stderr = processed
    for line in ("rank 1 of 1 that would do", "slices: 24", "no contrast declared"):
        assert line in stderr
        assert [told for told in answer["series"][0]["explanation"] if told.startswith(line)]


def test_nothing_half_written_is_left(processed):
    out, _, answer, _ = processed
    others = [str(path) for path in out.iterdir() if path.suffix != ".dcm"]
    assert others == answer["manifests"]


def test_the_manifest_beside_the_objects_lists_them(processed):
    out, _, answer, _ = processed
    result = run("verify", out, "--json")
    assert result.returncode == 0
    (made,) = json.loads(result.stdout)["sets"]
    assert made["manifest"] == answer["manifests"][0]
    assert {each["integrity"] for each in made["files"]} == {"unaltered"}
    assert sorted(each["path"] for each in made["files"]) == sorted(answer["outputs"])
    assert (made["missing"], made["signature"]) == ([], "none")


def test_the_same_study_again_gives_the_same_files(processed, study_folder, quick_bundle):
    out, _, answer, _ = processed
    before = {path: path.read_bytes() for path in out.glob("*.dcm")}
    code, again, _ = process(study_folder, out, quick_bundle)
    assert code == 0
    assert again["outputs"] == answer["outputs"]
    assert {path: path.read_bytes() for path in out.glob("*.dcm")} == before


def test_a_file_with_other_bytes_is_never_overwritten(
    processed, study_folder, quick_bundle, tmp_path
):
    out, *_ = processed
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    victim = sorted(copy.glob("MR-*.dcm"))[3]
    victim.write_bytes(b"other")
    result = run("process", study_folder, "--out", copy, bundle_folder=quick_bundle)
    assert result.returncode == 1
    assert victim.name in result.stderr
    assert victim.read_bytes() == b"other"
    assert "Traceback" not in result.stderr


def test_explain_says_why_and_leaves_the_answer_readable(quick_bundle, tmp_path):
    phantoms.write(phantoms.localizer(), tmp_path / "scout")
    code, answer, stderr = process(tmp_path / "scout", tmp_path / "out", quick_bundle, "--explain")
    assert code == 3
    assert answer["series"][0]["codes"][0] == "LOCALIZER"
    assert "localizer" in stderr
    assert "refuse TOO-FEW" in " ".join(stderr.split())  # not the deciding finding alone


@pytest.mark.hazard("H5")
def test_a_scout_within_the_series_is_neither_synthesised_nor_referenced(quick_bundle, tmp_path):
    slices, (scout,) = quick_study(), phantoms.localizer()
    scout.SeriesInstanceUID = slices[0].SeriesInstanceUID
    phantoms.write([scout, *slices], tmp_path / "study")
    code, answer, _ = process(tmp_path / "study", tmp_path / "out", quick_bundle)
    assert code == 0
    assert "LOCALIZER-SET-ASIDE" in answer["series"][0]["codes"]
    written = [dcmread(path) for path in answer["outputs"]]
    assert len([d for d in written if d.SOPClassUID == MRImageStorage]) == len(answer["slices"])
    assert scout.SOPInstanceUID not in "".join(map(str, written))
    assert slices[0].SOPInstanceUID in "".join(map(str, written))


def refused(study, tmp_path, quick_bundle):
    """Process what must be refused; its answer."""
    code, answer, stderr = process(study, tmp_path / "out", quick_bundle)
    assert code == 3
    assert answer["outputs"] == []
    assert "Traceback" not in stderr
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    return answer


def test_an_empty_folder_is_refused(tmp_path, quick_bundle):
    (tmp_path / "study").mkdir()
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    assert answer["series"] == answer["refused_files"] == []


def test_a_text_file_is_refused_by_name(tmp_path, quick_bundle):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "letter.txt").write_text("Dear colleague")
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    (file,) = answer["refused_files"]
    assert file["path"] == "letter.txt"
    assert file["code"]
    assert file["sentence"]


def test_a_truncated_instance_is_refused_by_name_and_its_series_for_the_gap(tmp_path, quick_bundle):
    paths = phantoms.write(phantoms.head_ct(), tmp_path / "study")
    content = paths[10].read_bytes()
    paths[10].write_bytes(content[: len(content) * 2 // 3])
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    assert [file["path"] for file in answer["refused_files"]] == [paths[10].name]
    assert "GEOM-GAP" in answer["series"][0]["codes"]


def test_an_mr_series_is_refused(tmp_path, quick_bundle):
    instances = phantoms.head_ct()
    for instance in instances:
        instance.Modality = "MR"
        instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = MRImageStorage
    phantoms.write(instances, tmp_path / "study")
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    assert answer["series"][0]["codes"][0] == "MODALITY"


def test_a_ct_without_pixel_data_is_refused(tmp_path, quick_bundle):
    instances = phantoms.head_ct()
    for instance in instances:
        del instance.PixelData
    phantoms.write(instances, tmp_path / "study")
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    codes = {file["code"] for file in answer["refused_files"]}
    codes |= {code for series in answer["series"] for code in series["codes"]}
    assert codes
    assert all(series["decision"] == "refused" for series in answer["series"])


def test_the_same_uid_with_other_bytes_is_refused_by_name(tmp_path, quick_bundle):
    instances = phantoms.head_ct()
    instances[5].SOPInstanceUID = instances[4].SOPInstanceUID
    instances[5].file_meta.MediaStorageSOPInstanceUID = instances[4].SOPInstanceUID
    phantoms.write(instances, tmp_path / "study")
    answer = refused(tmp_path / "study", tmp_path, quick_bundle)
    assert answer["refused_files"][0]["code"] == "CONFLICT"


def test_the_hospital_study_gives_its_brain_series_on_the_ct(shared_data, tmp_path, quick_bundle):
    """Right series, few slices, in the CT's frame of reference."""
    answer = _hospital_study_lies_on_the_ct(shared_data, tmp_path, quick_bundle)
    assert len(answer["slices"]) >= 20


@pytest.mark.slow
def test_the_hospital_study_gives_its_brain_series_dense_on_the_ct(shared_data, tmp_path):
    """The shipped bundle: over 120 slices, those of the CT among them."""
    answer = _hospital_study_lies_on_the_ct(shared_data, tmp_path, None)
    assert len(answer["slices"]) > 120
    assert sum(row["kind"] == "measured" for row in answer["slices"]) == 33


def _hospital_study_lies_on_the_ct(shared_data, tmp_path, bundle):
    study = shared_data / "ct_toshiba_head_study"
    code, answer, _ = process(study, tmp_path / "out", bundle)
    assert code == 0
    accepted = [s for s in answer["series"] if s["decision"] == "accepted"]
    assert [series["description"] for series in accepted] == ["Brain Head 5.0"]
    assert all(s["codes"] and s["sentence"] for s in answer["series"] if s not in accepted)
    assert answer["peak_memory_bytes"] <= 4_000_000_000
    assert _dice_on_the_ct(study, answer, accepted[0]["series_instance_uid"]) >= 0.95
    return answer


def _dice_on_the_ct(study, answer, series_uid):
    """Overlap of the head in the MR and in the CT: SimpleITK reads, places and resamples both."""
    import SimpleITK as sitk  # noqa: N813
    from scipy import ndimage

    def header(path):
        return dcmread(path, stop_before_pixels=True)

    images = [p for p in answer["outputs"] if header(p).SOPClassUID == MRImageStorage]
    images.sort(key=lambda path: int(header(path).InstanceNumber))
    source = [p for p in study.rglob("*") if p.is_file()]
    source = [p for p in source if header(p).SeriesInstanceUID == series_uid]
    source.sort(key=lambda path: float(header(path).ImagePositionPatient[2]))
    assert {header(p).FrameOfReferenceUID for p in (*images, *source)} == {
        header(source[0]).FrameOfReferenceUID
    }
    mr = sitk.ReadImage([str(path) for path in images])
    drawn = sitk.GetArrayFromImage(mr) > 0.08 * 4095
    heads = np.stack([ndimage.binary_fill_holes(plane) for plane in drawn]).astype(np.uint8)
    heads = sitk.GetImageFromArray(heads + 1)  # 0 is left for what lies outside the MR
    heads.CopyInformation(mr)
    both = ct_all = mr_all = 0
    for path in source[3:-3]:
        ct = sitk.ReadImage(str(path))
        inside = ndimage.binary_opening(sitk.GetArrayFromImage(ct)[0] > -300, iterations=3)
        labels, _ = ndimage.label(inside)
        inside = ndimage.binary_fill_holes(labels == np.argmax(np.bincount(labels.flat)[1:]) + 1)
        there = sitk.Resample(heads, ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        there = sitk.GetArrayFromImage(there)[0]
        both += (inside & (there == 2)).sum()
        ct_all += (inside & (there > 0)).sum()
        mr_all += (there == 2).sum()
    return 2 * both / (ct_all + mr_all)


def test_the_demonstration_shows_the_loop_the_refusals_and_the_score(tmp_path, quick_bundle):
    out = tmp_path / "out"
    result = run("demo", "--out", out, "--json", bundle_folder=quick_bundle)
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    wrong = [row for row in answer["rows"] if not row["as_expected"]]
    assert wrong == []
    assert len(answer["rows"]) == 12
    assert [row["sent"] for row in answer["rows"] if row["synthesised"]] == [
        "thick slices, gantry tilt"
    ]
    assert all(row["why"] for row in answer["rows"])
    assert answer["score"]["ssim"] > answer["score"]["ct_ssim"] + 0.2
    assert answer["score"]["psnr_db"] > answer["score"]["ct_psnr_db"] + 5.0
    assert Path(answer["picture"]) == out / "overview.png"
    assert (out / "overview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<html" in Path(answer["audit_report"]).read_text().lower()
    objects = [dcmread(path) for path in answer["objects"]]
    assert {str(instance.SyntheticData) for instance in objects} == {"YES"}
