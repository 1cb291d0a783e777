"""A late slice makes a new set that names the one before, through store, path and gate."""

from __future__ import annotations

import hashlib
from functools import partial
from io import BytesIO

import pydicom
import pytest

from rebrain_node import __version__
from rebrain_node.app.compose import open_model
from rebrain_node.demonstration.returned import volume_of
from rebrain_node.domain import marks
from rebrain_node.folder import Folder
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import load_bundle
from rebrain_node.pipeline import Configuration, Ports
from rebrain_node.settings import Model, Settings
from rebrain_node.steps.sign import NodeSigner
from rebrain_node.steps.write import ObjectOptions
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.worker.work import Work
from tests.support.quick_node import quick_study, write_quick_bundle
from tests.support.store_cases import accept, fast_folder, received


@pytest.fixture(scope="module")
def shaping(tmp_path_factory):
    bundle = load_bundle(write_quick_bundle(tmp_path_factory.mktemp("bundle") / "quick", 16.0))
    configuration = Configuration(
        bundle=bundle,
        limits=shipped_limits(),
        objects=ObjectOptions(mr="enhanced"),
        software_version=__version__,
        digest="3" * 64,
    )
    return configuration, open_model(Settings(model=Model(threads=1)), bundle)


def folder_of(instances) -> Folder:
    sha256 = {
        str(i.SOPInstanceUID): hashlib.sha256(str(i.SOPInstanceUID).encode()).hexdigest()
        for i in instances
    }
    return Folder(instances=tuple(instances), sha256=sha256, refused=())


def test_the_set_of_a_late_slice_names_series_and_report_of_the_set_before(shaping):
    configuration, running = shaping
    study = quick_study()
    series, study_uid = str(study[0].SeriesInstanceUID), str(study[0].StudyInstanceUID)
    sets = []
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        ledger, outbox = Ledger(database), Outbox(database, folder / "outbox")
        for revision, instances in enumerate((study[:-1], study), start=1):
            inbox = folder_of(instances)
            signer = NodeSigner(ae_title="REBRAIN", key=None)
            ports = Ports(inbox=inbox, audit=AuditLog(database), model=running, signer=signer)
            work = Work(
                ledger=ledger,
                outbox=outbox,
                ports=partial(lambda opened: opened, ports),
                configuration=lambda: configuration,
                destinations=(),
            )
            known = len(study[:-1]) if revision > 1 else 0
            for number in range(known, len(instances)):
                ledger.record_received(received(number, series=series, study=study_uid))
            assert accept(ledger, series, study_uid).revision == revision
            assert work.synthesise(series, revision, attempt=1) == "done"
            set_id = outbox.set_of(series, revision)
            assert set_id is not None, ledger.series_one(series)
            made = outbox.instances_of(set_id)
            sets.append({one.kind: pydicom.dcmread(BytesIO(one.content)) for one in made})
    first, second = sets
    assert "PredecessorDocumentsSequence" not in first["SR"]
    (before,) = second["SR"].PredecessorDocumentsSequence
    (named,) = before.ReferencedSeriesSequence
    assert before.StudyInstanceUID == study_uid
    assert named.SeriesInstanceUID == first["SR"].SeriesInstanceUID
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first["SR"].SOPInstanceUID
    for dataset in second.values():
        block = dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        assert block[marks.PREDECESSOR.offset].value == first["MR"].SeriesInstanceUID
        assert block[marks.REVISION.offset].value == 2
    shown = volume_of(study, list(second.values()), configuration.bundle.recipe)
    assert shown.intensity.shape[0] == second["MR"].NumberOfFrames == len(shown.guides)
    assert first["MR"].SeriesInstanceUID != second["MR"].SeriesInstanceUID
