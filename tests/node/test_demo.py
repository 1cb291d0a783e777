"""`demo`: the newcomer's first command, from the package alone."""

import json
from pathlib import Path

from pydicom import dcmread

from tests.support.quick_node import run


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
