"""A network that draws next to nothing is found out; one that draws the head passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.errors import SeriesRejectedError
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.examine import LEAST_EDGES, examine, features
from rebrain_node.steps.ood import without_domain
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from tests.support.geometry_cases import GEOMETRY, RECIPE, SMALL, WindowedSource
from tests.support.phantoms import head_ct

pytestmark = pytest.mark.hazard("H15")


@pytest.fixture(scope="module")
def drawn():
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    return synthesise(prepared, retrieve(prepared, RECIPE), WindowedSource(), RECIPE, 1)


def refusal(synthetic):
    with pytest.raises(SeriesRejectedError) as refused:
        examine(synthetic)
    (finding,) = refused.value.findings
    return finding


def test_a_volume_that_shows_the_head_passes(drawn):
    examine(drawn)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_blank_head_is_refused(drawn, level):
    blank = replace(drawn, intensity=np.where(drawn.head, np.float32(level), np.float32(0.0)))
    finding = refusal(blank)
    assert finding.code == "FEATURELESS"
    assert finding.severity == "refuse"
    assert finding.value < finding.limit


def test_a_head_that_is_nearly_blank_is_refused(drawn):
    faint = 0.45 + np.float32(0.08) * drawn.intensity
    finding = refusal(replace(drawn, intensity=np.where(drawn.head, faint, 0.0)))
    assert "times that of the CT" in finding.sentence


def test_noise_without_anatomy_is_refused(drawn):
    noise = np.random.default_rng(3).uniform(0, 1, drawn.intensity.shape).astype(np.float32)
    finding = refusal(replace(drawn, intensity=np.where(drawn.head, noise, 0.0)))
    assert "edges correlate" in finding.sentence
    assert finding.limit == LEAST_EDGES


def test_the_entropy_is_that_of_64_bins_over_that_of_the_ct(drawn):
    levels = (np.arange(drawn.intensity.size) % 64 + 0.5) / 64
    even = replace(drawn, intensity=levels.reshape(drawn.intensity.shape).astype(np.float32))
    of_ct = 6.0 / features(even)["entropy"]
    assert features(drawn)["entropy"] == pytest.approx(1.0, abs=0.05)
    assert 2.5 < of_ct < 3.5


def test_a_bundle_without_a_domain_is_said_to_have_none():
    finding = without_domain("tiny 0.1")
    assert finding.code == "NO-DOMAIN"
    assert finding.severity == "flag"
    assert "the bundle tiny 0.1 has no out-of-distribution model" in finding.sentence
