"""The report of a series as a browser draws it: pictures, strip and warning are really seen."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rebrain_node.pictures import KINDS
from rebrain_node.report.acceptance_page import acceptance_page
from rebrain_node.report.result_pictures import pictures_of
from rebrain_node.report.series_page import series_page
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import provenance, synthetic_volume
from tests.unit.report.test_pages import acceptance_facts, facts

CHROMIUM = shutil.which("chromium")
WARNING = (255, 179, 64)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    source = head_ct(rows=64, columns=64, pixel_spacing_mm=(4.0, 4.0))
    options = ObjectOptions(companions=("PM",))
    derived = write(synthetic_volume(source), source, provenance(), (), options)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(series_page(replace(facts(), pictures=pictures_of(derived.instances))))
    return path


def chromium(page, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *options, page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)


def test_pictures_strip_and_warning_are_drawn(page):
    shot = page.with_name("page.png")
    chromium(page, f"--screenshot={shot}", "--window-size=1250,3600")
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    for colour in (WARNING, KINDS["measured"], KINDS["retrieved"]):
        assert (pixels == colour).all(axis=-1).sum() > 100
    dark = (pixels < 8).all(axis=-1)
    assert dark.mean() > 0.02, "the pictures have a black ground"
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    inside = pixels[rows[0] : rows[-1], columns[0] : columns[-1]].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) > 100, "and a head in grey and in colours on it"


def test_it_prints_to_pdf(page):
    printed = page.with_name("page.pdf")
    chromium(page, f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 20_000


def test_the_acceptance_report_fits_its_page(tmp_path):
    page = tmp_path / "acceptance.html"
    words = "ventricles and sulci as in the MR of last week, basal slices blurred " * 4
    page.write_text(acceptance_page(acceptance_facts(words)))
    shot = tmp_path / "page.png"
    chromium(page, f"--screenshot={shot}", "--window-size=1250,3000", "--hide-scrollbars")
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert (pixels == WARNING).all(axis=-1).sum() > 100
    margin = pixels[:, -24:]
    assert (margin == margin[0, 0]).all(), "nothing is wider than the page"
