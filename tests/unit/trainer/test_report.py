"""The report of an evaluation shows every figure and limit and needs no other file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tests.support.evaluations import an_evaluation
from trainer.evaluate.plots import DOTS_PER_INCH, WIDTH_INCH, learning, read_curves
from trainer.evaluate.report import Supplement, limits
from trainer.evaluate.report_files import json_text, replaced, write_report
from trainer.evaluate.results import paper_data, read_scores
from trainer.evaluate.tables import (
    IMAGE,
    factor_table,
    headline_tables,
    metric,
    placed_table,
    table,
    wins_table,
)

_VOID = {"meta", "img"}
ATTACK = "<script>alert(1)</script>"
FEW = {"constant": 0.0, "lut": 0.3, "bridge-slerp": 0.7, "rebrain": 0.8}


class Elements(HTMLParser):
    """Every element, attribute and word of a page; fails where an element is not closed."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "volumes"
    others = [an_evaluation(protocol=f"decimate:{k}", methods=FEW).document for k in (3, 4)]
    evaluation = an_evaluation(methods=FEW)
    write_report(evaluation, out, Supplement(documents=others))
    return evaluation, out


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "pairs"
    methods = {"rebrain": 0.8, "constant": 0.0, ATTACK: 0.3}
    evaluation = an_evaluation(volumetric=False, methods=methods, origin=ATTACK)
    write_report(evaluation, out)
    return evaluation, out


@pytest.mark.parametrize("kind", ["volumes", "pairs"])
def test_pages_name_every_method_metric_subject_reason_and_limit(kind, request):
    evaluation, out = request.getfixturevalue(kind)
    html = "".join(Elements((out / "evaluation.html").read_text()).text)
    markdown = (out / "evaluation.md").read_text().replace("&lt;", "<").replace("&gt;", ">")
    document = evaluation.document
    wanted = [*document["methods"], *document["skipped"].values(), *document["notes"]]
    wanted += [*document["dataset"]["subjects"], document["protocol"], "not for diagnosis"]
    wanted += [metric(name).heading for name in document["methods"]["rebrain"]]
    wanted += ["3 subjects", "Nothing here is comparable", document["bundle"]["digest"]]
    for words in wanted:
        assert words in html, words
        assert words in markdown, words


@pytest.mark.parametrize("kind", ["volumes", "pairs"])
def test_the_json_is_the_document(kind, request):
    evaluation, out = request.getfixturevalue(kind)
    assert json.loads((out / "evaluation.json").read_text()) == evaluation.document


@pytest.mark.parametrize("kind", ["volumes", "pairs"])
def test_the_page_loads_nothing_and_runs_nothing(kind, request):
    _, out = request.getfixturevalue(kind)
    page = (out / "evaluation.html").read_text()
    parsed = Elements(page)
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(parsed.elements)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name == "href"]
    sources = [value for name, value in parsed.attributes if name == "src"]
    assert len(sources) == len(list((out / "figures").iterdir())) == 4
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert "http" not in re.sub(r"data:image/png;base64,[\w+/=]+|http-equiv", "", page)


@pytest.mark.parametrize("kind", ["volumes", "pairs"])
def test_figures_are_as_wide_as_the_page_and_not_blank(kind, request):
    _, out = request.getfixturevalue(kind)
    for path in (out / "figures").iterdir():
        image = Image.open(path)
        assert image.width == round(WIDTH_INCH * DOTS_PER_INCH), path.name
        grey = np.asarray(image.convert("L"))
        assert (grey < 200).mean() > 0.005, path.name
        # nothing runs over the edge of the sheet
        assert grey[:2].min() > 200, path.name
        assert grey[-2:].min() > 200, path.name


def test_the_same_evaluation_gives_the_same_bytes(pairs, tmp_path):
    evaluation, out = pairs
    write_report(evaluation, tmp_path / "again")
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_words_from_outside_stay_words(pairs):
    _, out = pairs
    parsed = Elements((out / "evaluation.html").read_text())
    assert "script" not in parsed.elements
    assert ATTACK in "".join(parsed.text)
    assert "<script" not in (out / "evaluation.md").read_text()


def test_a_report_that_cannot_be_drawn_leaves_the_earlier_one_as_it_was(tmp_path):
    out = tmp_path / "out"
    replaced(out, lambda part: (part / "evaluation.json").write_text("{}"))
    broken = an_evaluation(methods=FEW, shape=(4, 12, 10))
    broken.montage.predictions["rebrain"] = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(IndexError):
        replaced(out, lambda part: write_report(broken, part))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "out",
        "out/evaluation.json",
    ]


def test_what_is_no_number_is_null_in_the_json_and_a_dash_in_the_table():
    document = an_evaluation(methods=FEW).document
    document["methods"]["lut"]["psnr"]["mean"] = float("nan")
    again = json.loads(json_text(document))
    assert again["methods"]["lut"]["psnr"]["mean"] is None
    made = table("t", read_scores(again), ("psnr",))
    assert [row.cells[0].text for row in made.rows if row.name == "lut"] == ["-"]


def test_the_best_of_a_column_is_marked_whoever_it_is_and_ties_share_the_mark():
    scores = read_scores(an_evaluation(methods={"rebrain": 0.5, "lut": 0.9, "b": 0.9}).document)
    made = table("t", scores, ("psnr", "nrmse", "i_ssim", "i_ssim_gap"))
    marked = {row.name: [cell.best for cell in row.cells] for row in made.rows}
    assert marked["rebrain"] == [False] * 4
    assert marked["lut"] == marked["b"] == [True, True, False, True]
    assert not any(marked["the real MR itself"])


def test_wins_are_counted_by_subject_in_the_metrics_own_direction():
    document = an_evaluation(methods={"rebrain": 0.5, "lut": 0.9, "constant": 0.0}).document
    made = wins_table(read_scores(document), IMAGE)
    cells = {row.name: {cell.text for cell in row.cells} for row in made.rows}
    assert cells == {"better than lut": {"0 of 3"}, "better than constant": {"3 of 3"}}


def test_protocols_stand_side_by_side_only_for_the_same_subjects_and_bundle(tmp_path):
    first, second = (an_evaluation(protocol=f"thick:{k}", methods=FEW) for k in (2, 3))
    made = factor_table([first.document, second.document])
    assert [name for name, _ in made.groups] == ["thick x2", "thick x3"]
    assert len(made.columns) == sum(width for _, width in made.groups)
    with pytest.raises(ValueError, match="same protocol"):
        write_report(first, tmp_path / "a", Supplement(documents=[first.document]))
    other = an_evaluation(protocol="thick:3", methods=FEW, subjects=["x", "y", "z"])
    with pytest.raises(ValueError, match="other subjects"):
        write_report(first, tmp_path / "b", Supplement(documents=[other.document]))
    assert list(tmp_path.iterdir()) == []


def test_positions_are_compared_only_where_some_are_measured_and_some_filled():
    both = read_scores(an_evaluation(methods=FEW).document)
    made = placed_table(both)
    assert [len(row.cells) for row in made.rows] == [len(made.columns)] * len(FEW)
    filled = {
        method: {name: value for name, value in found.items() if not name.endswith("_measured")}
        for method, found in both.items()
    }
    assert placed_table(filled) is None


def test_the_papers_figures_stand_only_beside_the_same_data_at_half_resolution():
    def paper_of(origin, protocol):
        return paper_data({"dataset": {"name": "", "origin": origin}, "protocol": protocol})

    assert paper_of("SynthRAD2023 brain, Task 1", "decimate:2") == "SynthRAD2023"
    assert paper_of("BraTS 2015", "decimate:2") == "BraTS"
    assert paper_of("BraTS 2015", "thick:2") is None
    assert paper_of("t1_flair_2mm NiChart", "decimate:2") is None
    theirs = an_evaluation(methods=FEW, origin="BraTS").document
    rows = [row.name for made in headline_tables(theirs, []) for row in made.rows]
    assert "ReBrain, as printed in the paper" in rows
    assert "without control, as printed in the paper" in rows
    assert not any("Nothing here is comparable" in line for line in limits(theirs))


def test_curves_are_of_image_figures_and_losses_are_left_out(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text(
        "objective,seed,step,loss,psnr\nraw,7,0,9.0,12.0\nraw,7,50,3,\nraw,7,100,1,15.5\n"
    )
    curves = read_curves(path)
    assert list(curves) == ["raw, seed 7"]
    curve = curves["raw, seed 7"]
    assert (curve.steps, dict(curve.figures)) == ((0, 100), {"psnr": (12.0, 15.5)})
    assert [plot.name for plot in learning(curves)] == ["iterations"]
    assert learning({}) == ()
    path.write_text("step,loss\n0,9.0\n")
    with pytest.raises(ValueError, match="at least one metric"):
        read_curves(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source_kind": "mr"}, "say nothing about CT"),
        ({"origin": "simulated CT"}, "real CT will score lower"),
        ({"volumetric": False}, "nothing here is in HU or millimetres"),
    ],
)
def test_every_report_says_what_its_data_cannot_show(changes, sentence):
    told = limits(an_evaluation(methods=FEW, shape=(4, 12, 10), **changes).document)
    assert any(sentence in line for line in told)
