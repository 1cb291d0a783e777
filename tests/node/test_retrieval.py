"""The path of a series with a knowledge base: three kinds of slices, told everywhere alike.

The encoder is a graph of patch means and the engine shows its source, so that only the retrieval
is looked at; head frame, search, writer and gate are the real ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from rebrain_node.app.compose import configure, open_bundle, open_model
from rebrain_node.demonstration.study import simulate_study
from rebrain_node.domain import marks
from rebrain_node.domain.job import Job
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.folder import Folder
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Retrieval
from rebrain_node.model.resample import halved
from rebrain_node.pipeline import Ports, process
from rebrain_node.retrieval.search import FaissExemplars
from rebrain_node.settings import Settings
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.sign import NodeSigner
from tests.support.geometry_cases import GEOMETRY
from tests.support.knowledge_bases import subject_hash, verified, with_index
from tests.support.ood_models import ood_model
from tests.support.plain_bundle import tiny_encoder_graph

TOP_MM = 30.0  #: the base holds nobody's slices above


class Showing:
    """An engine that draws its source, and a little of its guide where it has one."""

    identity, batch = "showing 1 fp32", 1

    def evaluate(self, x, s, guide=None):
        source = x[:, 1:2]
        return x[:, :1] - 0.6 * source - 0.2 * (source if guide is None else guide)


class Log:
    """An audit log in memory."""

    def __init__(self):
        self.events = {}

    def record(self, event, subject, details):
        self.events.setdefault(event, []).append(dict(details))

    def head(self):
        return None

    def checkpoint(self):
        return None


@pytest.fixture(scope="module")
def run():
    """One series down the path: receipt, log and exemplars."""
    return _path(Retrieval(method="exemplar", tau=0.98))


def _path(retrieval: Retrieval):
    study = _study()
    shaping = configure(Settings(), open_bundle(Settings()).bundle)
    recipe = shaping.bundle.recipe.model_copy(update={"spacing_mm": 2.5, "retrieval": retrieval})
    shaping = replace(
        shaping,
        bundle=replace(shaping.bundle, recipe=recipe, ood_model=ood_model()),
        objects=replace(shaping.objects, companions=()),
    )
    encoder = encoder_of_graph(tiny_encoder_graph(128, 104), threads=1)
    exemplars = _own_slices(study, recipe, encoder) if recipe.retrieves else None
    uid = str(study[0].SeriesInstanceUID)
    sha256 = {str(i.SOPInstanceUID): hashlib.sha256(i.PixelData).hexdigest() for i in study}
    log = Log()
    ports = Ports(
        inbox=Folder(instances=study, sha256=sha256, refused=()),
        audit=log,
        model=LoadedModel.of(shaping.bundle, Showing(), encoder=encoder, exemplars=exemplars),
        signer=NodeSigner(ae_title="REBRAIN", key=None),
    )
    job = Job(study_instance_uid=str(study[0].StudyInstanceUID), series_instance_uid=uid)
    return process(job, ports, shaping), log, exemplars


@cache
def _study() -> tuple[Dataset, ...]:
    """The slices of the simulated study, made once."""
    return tuple(i for i in simulate_study().instances if "LOCALIZER" not in i.ImageType)


def _own_slices(study, recipe, encoder) -> FaissExemplars:
    """The head's own slices as those of two others, up to `TOP_MM`."""
    prepared = preprocess(assemble(study, GEOMETRY), recipe)
    position = locate(prepared, load_head_template()).position_mm
    kept = position < TOP_MM
    brain = halved(recipe.brain_window.apply(prepared.hu[kept]))
    names = [subject_hash(k % 2).encode() for k in range(int(kept.sum()))]
    base = with_index(
        embeddings=np.stack([encoder.embed(image[None, None]) for image in brain]),
        position_mm=position[kept],
        subject=np.array(names, dtype="S32"),
        ct=np.rint((brain + 1) * 127.5).astype(np.uint8),
    )
    return FaissExemplars(verified(base), 0.98)


def test_a_series_has_slices_of_all_three_kinds(run):
    receipt, _, _ = run
    counts = Counter(guide.kind for guide in receipt.guides)
    assert min(counts[kind] for kind in ("measured", "retrieved", "interpolated")) > 0
    beyond = [g for g in receipt.guides if "no exemplar lies within" in g.reason]
    assert beyond
    assert {g.kind for g in beyond} == {"interpolated"}


def test_every_instance_says_by_its_private_block_what_the_guide_says(run):
    receipt, _, _ = run
    images = [
        dcmread(BytesIO(one.content)) for one in receipt.derived.instances if one.kind == "MR"
    ]
    assert len(images) == len(receipt.guides)
    for image, guide in zip(images, receipt.guides, strict=True):
        block = image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        assert block[marks.POSITION_KIND.offset].value == guide.kind.upper()
        assert (marks.EXEMPLAR.offset in block) == (guide.kind == "retrieved")
        if guide.kind == "retrieved":
            assert block[marks.EXEMPLAR.offset].value == guide.exemplar
            assert block[marks.SIMILARITY.offset].value >= block[marks.TAU.offset].value
            difference = block[marks.POSITION_DIFFERENCE.offset].value
            assert difference == pytest.approx(guide.position_difference_mm)


def test_the_audit_log_has_one_row_with_every_slice(run):
    receipt, log, exemplars = run
    (told,) = log.events["series.guided"]
    assert told["kinds"] == dict(Counter(guide.kind for guide in receipt.guides))
    assert told["knowledge_base"] == exemplars.digest
    assert told["tau"] == 0.98
    assert told["revision"] == 1
    assert [row[4] for row in told["slices"]] == [guide.exemplar for guide in receipt.guides]
    steps = [row["step"] for row in log.events["step.completed"]][1:]
    assert steps == [
        "assemble",
        "check",
        "preprocess",
        "locate",
        "embed",
        "recognise",
        "admit",
        "retrieve",
        "synthesise",
        "examine",
        "abstain",
        "write",
        "gate",
        "sign",
    ]


@pytest.mark.parametrize("method", ["slerp", "linear"])
def test_without_exemplars_every_object_says_that_slices_are_interpolated_and_how(method):
    receipt, log, _ = _path(Retrieval(method=method))
    assert {guide.kind for guide in receipt.guides} == {"measured", "interpolated"}
    (told,) = log.events["series.guided"]
    assert (told["knowledge_base"], told["tau"], told["kinds"]["retrieved"]) == (None, None, 0)
    how = {"slerp": "retrieves no exemplar", "linear": "the synthetic slices are interpolated"}
    assert sum(how[method] in reason for reason in told["reasons"]) >= 1
    for one, guide in zip(receipt.derived.instances, receipt.guides, strict=True):
        image = dcmread(BytesIO(one.content))
        block = image.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        assert block[marks.POSITION_KIND.offset].value == guide.kind.upper()
        assert "exemplar" not in image.DerivationDescription


def test_a_registered_exemplar_is_told_with_its_transform():
    receipt, log, _ = _path(Retrieval(method="exemplar", tau=0.98, registration="similarity"))
    (told,) = log.events["series.guided"]
    registered = 0
    for one, guide, row in zip(
        receipt.derived.instances, receipt.guides, told["slices"], strict=True
    ):
        words = dcmread(BytesIO(one.content)).DerivationDescription
        assert ("registered in its plane" in words) == (guide.registration is not None)
        assert row[7] == (None if guide.registration is None else guide.registration.to_json())
        if guide.registration is not None:
            registered += 1
            assert guide.kind == "retrieved"
            assert abs(guide.registration.rotation_deg) < 3.0  # the exemplars are its own slices
    assert registered > 0


@pytest.mark.hazard("H13")
def test_the_audit_log_and_the_findings_say_that_the_series_is_out_of_domain(run):
    receipt, log, _ = run  # this domain was fitted to noise: nothing real is in it
    (told,) = log.events["series.recognised"]
    assert told["score"] > told["threshold"]
    assert set(told["parts"]) == {"head frame", "picture"}
    found = [finding for finding in receipt.findings if finding.code == "OOD"]
    assert [finding.severity for finding in found] == ["flag"]
    assert found[0].value == pytest.approx(told["score"], abs=0.01)


def test_the_shipped_bundle_retrieves_and_its_parts_prove_each_other():
    opened = open_model(Settings(), open_bundle(Settings()).bundle)
    assert opened.exemplars is not None
    assert 0.5 < opened.exemplars.tau < 1.0
    assert opened.scale is not None
