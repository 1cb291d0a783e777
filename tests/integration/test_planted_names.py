"""No name of a patient leaves the bytes: 50 planted ones, every table, log line and file of a node.

They stand in the received instances, and in the derived objects where a copy is documented
(docs/objects.md). `audit erase` removes both, and the audit log stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import pytest
import structlog
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from rebrain_node import __version__
from rebrain_node.app.compose import (
    State,
    audit_check,
    find_state,
    make_audit_key,
    open_model,
    open_state,
)
from rebrain_node.app.messages import audit_message_loops, audit_source
from rebrain_node.app.reports import write_series_report
from rebrain_node.blobs import inbox_blobs
from rebrain_node.cli import program
from rebrain_node.domain.audit import Event
from rebrain_node.domain.audit_message_rules import messages_of
from rebrain_node.domain.ledger import Judgement, ReceivedInstance
from rebrain_node.domain.notice import notice_of
from rebrain_node.errors import InstanceConflictError, StateError
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.keys import node_key
from rebrain_node.pipeline import Configuration, Ports, judge_study
from rebrain_node.reception.inbox import InboxFolder
from rebrain_node.report.audit_message import message_xml
from rebrain_node.settings import AuditMessageSettings, Model, Settings, Storage
from rebrain_node.steps.sign import NodeSigner
from rebrain_node.steps.write import ObjectOptions
from rebrain_node.steps.write.source import OPTIONAL_IDENTITY, REQUIRED_IDENTITY
from rebrain_node.worker.work import Work
from tests.support.quick_node import quick_study, write_quick_bundle
from tests.support.store_cases import answers, complete_all

WORD = "PLANTED"
#: elements that hold a planted name, each another one
ELEMENTS = (
    "PatientName", "PatientID", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "PatientComments", "PatientAddress", "PatientTelephoneNumbers", "CountryOfResidence",
    "RegionOfResidence", "EthnicGroup", "Occupation", "AdditionalPatientHistory", "MedicalAlerts",
    "Allergies", "MilitaryRank", "BranchOfService", "PatientReligiousPreference",
    "ResponsiblePerson", "ResponsibleOrganization", "ReferringPhysicianName",
    "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers", "ConsultingPhysicianName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "PerformingPhysicianName",
    "OperatorsName", "RequestingPhysician", "RequestingService", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "AccessionNumber",
    "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "StudyComments", "RequestedProcedureDescription", "RequestedProcedureID",
    "PerformedProcedureStepDescription", "PerformedProcedureStepID", "AdmissionID", "VisitComments",
    "CurrentPatientLocation", "DeviceSerialNumber", "IssuerOfPatientID",
)  # fmt: skip
#: elements of derived objects that are copied from the source
COPIED = {*REQUIRED_IDENTITY, *OPTIONAL_IDENTITY, "DeviceSerialNumber"}
PAGE = (Path(__file__).parents[2] / "docs/objects.md").read_text(encoding="utf-8")


@dataclass
class PlantedNode:
    """A node that took, disputed and published the study of a patient with planted names."""

    settings: Settings
    study: str
    log: str
    derived: list[Dataset]


def planted_study() -> list[Dataset]:
    instances = quick_study()
    for instance in instances:
        for number, keyword in enumerate(ELEMENTS):
            name = f"{WORD}{number:02}"
            long = dictionary_VR(keyword) not in ("SH", "LO", "PN", "AE", "CS")
            setattr(instance, keyword, f"{name} is in here" if long else name)
        item = Dataset()
        item.PatientID, item.TypeOfPatientID = f"{WORD}97", "TEXT"
        instance.OtherPatientIDsSequence = [item]
        block = instance.private_block(0x0019, f"{WORD}98", create=True)
        block.add_new(0x01, "LO", f"{WORD}99")
    return instances


def content_of(instance: Dataset) -> bytes:
    stream = BytesIO()
    instance.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def take(state: State, instance: Dataset) -> None:
    content = content_of(instance)
    blobs = inbox_blobs(state.inbox)
    digest = blobs.put(content)
    state.ledger.record_received(
        ReceivedInstance(
            sop_instance_uid=str(instance.SOPInstanceUID),
            sop_class_uid=str(instance.SOPClassUID),
            series_instance_uid=str(instance.SeriesInstanceUID),
            study_instance_uid=str(instance.StudyInstanceUID),
            transfer_syntax_uid=str(instance.file_meta.TransferSyntaxUID),
            sha256=digest,
            size_bytes=len(content),
            path=str(blobs.path(digest)),
            calling_ae_title="CT1",
        )
    )


def work_of(state: State, folder: Path) -> Work:
    bundle = load_bundle(write_quick_bundle(folder / "quick", 16.0))
    configuration = Configuration(
        bundle=bundle,
        limits=shipped_limits(),
        objects=ObjectOptions(),
        software_version=__version__,
        digest="3" * 64,
    )
    model = open_model(Settings(model=Model(threads=1)), bundle)
    inbox = InboxFolder(state.inbox, state.ledger)
    signer = NodeSigner(ae_title="REBRAIN", key=node_key(state.folder))
    return Work(
        ledger=state.ledger,
        outbox=state.outbox,
        ports=lambda: Ports(inbox=inbox, audit=state.audit, model=model, signer=signer),
        configuration=lambda: configuration,
        destinations=("pacs",),
    )


def live(state: State, folder: Path) -> tuple[str, list[Dataset]]:
    """Receive, judge, synthesise, deliver; an instance comes again with other content."""
    instances = planted_study()
    study, series = str(instances[0].StudyInstanceUID), str(instances[0].SeriesInstanceUID)
    inbox_blobs(state.inbox).prepare()
    for instance in instances:
        take(state, instance)
    other = instances[0].copy()
    other.PatientName = f"{WORD}96"
    with pytest.raises(InstanceConflictError):
        take(state, other)
    state.ledger.decide(series, "keep-first", operator="mtra", reason="checked")
    complete_all(state.ledger)
    work = work_of(state, folder)
    read = InboxFolder(state.inbox, state.ledger).read_study(study)
    (candidate,) = judge_study(read, work.configuration().limits).candidates
    judgement = Judgement(
        series_instance_uid=series,
        revision=1,
        decision=candidate.decision,
        findings=candidate.findings,
        explanation=candidate.explanation,
    )
    state.ledger.judge(study, [judgement])
    assert work.synthesise(series, 1, attempt=1) == "done"
    number = state.outbox.set_of(series, 1)
    assert number is not None, state.ledger.series_one(series)
    made = state.outbox.instances_of(number)
    state.deliveries.failed(number, "pacs", "no connection")
    state.deliveries.record(number, "pacs", answers(made))
    state.audit.checkpoint()
    return study, [dcmread(BytesIO(one.content)) for one in made]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> PlantedNode:
    """The node of the tests that only read."""
    return planted_node(tmp_path_factory.mktemp("planted"))


def planted_node(folder: Path) -> PlantedNode:
    settings = Settings(storage=Storage(folder=folder / "state"))
    lines = StringIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=lines),
        cache_logger_on_first_use=False,
    )
    with open_state(settings) as state:
        make_audit_key(state)
        study, derived = live(state, folder)
    structlog.reset_defaults()
    return PlantedNode(settings, study, lines.getvalue(), derived)


def planted_keywords(dataset: Dataset) -> set[str]:
    return {
        element.keyword or f"{element.tag}"
        for element in dataset.iterall()
        if element.VR != "SQ" and WORD in str(element.value)
    }


def files_with_a_name(folder: Path) -> set[str]:
    """Files of the node's state that hold a planted name, as their top folder or name."""
    return {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*")
        if path.is_file() and WORD.encode() in path.read_bytes()
    }


def test_fifty_names_are_planted(node: PlantedNode) -> None:
    assert len(ELEMENTS) == 50
    assert len(planted_keywords(planted_study()[0])) > 50


@pytest.mark.hazard("H2")
def test_a_planted_name_stands_in_received_and_derived_instances_alone(node: PlantedNode) -> None:
    assert files_with_a_name(node.settings.storage.folder) == {"inbox", "outbox"}
    assert WORD not in node.log
    assert "synthesised" in node.log


@pytest.mark.hazard("H2")
def test_a_planted_name_stands_in_no_audit_message_and_in_no_notice(node: PlantedNode) -> None:
    with find_state(node.settings) as state:
        events = state.audit.events(10_000)
        facts = state.audit_queue.facts(events)
        messages = messages_of(events, facts, audit_source(node.settings))
        notice = notice_of("REBRAIN", events)
    assert len(messages) > 5
    assert not any(WORD.encode() in message_xml(message) for message in messages)
    assert notice is None or WORD not in notice.text + str(notice.to_json())


def test_who_made_the_report_of_a_series_stands_in_the_log(node: PlantedNode, tmp_path) -> None:
    with find_state(node.settings) as state:
        (record,) = state.ledger.series()
        write_series_report(node.settings, record.series_instance_uid, tmp_path / "page.html")
        (made,) = state.audit.events(9, event=Event.REPORT_MADE)
        (message,) = messages_of(
            [made], state.audit_queue.facts([made]), audit_source(node.settings)
        )
    assert (made.subject, made.details["set"]) == (record.series_instance_uid, 1)
    assert (message.id.meaning, message.action) == ("DICOM Instances Accessed", "R")
    assert message.objects[0].id == node.study
    assert message.participants[0].user_id.startswith(f"{made.details['operator']}@")


def test_messages_hold_the_patient_id_where_the_site_says_so(node: PlantedNode) -> None:
    collectors = [{"name": "arr", "host": "localhost"}]
    part = {"patient_id": "include", "collectors": collectors}
    settings = node.settings.model_copy(
        update={"audit_messages": AuditMessageSettings.model_validate(part)}
    )
    with find_state(settings) as state:
        (loop,) = audit_message_loops(settings, state)
        contents = [message_xml(each) for each in loop.messages(state.audit.events(10_000))]
    held = [content for content in contents if f"{WORD}01".encode() in content]
    assert held
    assert all(b"Patient Number" in content for content in held)
    assert not any(f"{WORD}00".encode() in content for content in contents)  # the name


def test_a_derived_object_holds_what_is_documented_as_copied(node: PlantedNode) -> None:
    found = set[str]().union(*map(planted_keywords, node.derived))
    assert found >= {"PatientName", "PatientID", "AccessionNumber", "StudyDescription"}
    assert found <= COPIED
    assert [keyword for keyword in found if keyword not in PAGE] == []


def test_erasing_a_patient_leaves_no_name_and_a_log_that_verifies(tmp_path: Path) -> None:
    node = planted_node(tmp_path)
    config = node.settings.storage.folder.parent / "node.toml"
    config.write_text(f"[storage]\nfolder = {str(node.settings.storage.folder)!r}\n")
    with find_state(node.settings) as state:
        rows = state.audit.head()[0]
        assert node.study not in state.results.manifest_of(1)
    run = CliRunner().invoke(program, ["audit", "erase", f"{WORD}01", "--reason", "asked",
                                       "--config", str(config)], input="n\n")  # fmt: skip
    assert run.exit_code == 1
    assert files_with_a_name(node.settings.storage.folder) == {"inbox", "outbox"}
    arguments = ["audit", "erase", f"{WORD}01", "--reason", "asked", "--config", str(config)]

    run = CliRunner().invoke(program, [*arguments, "--yes"])

    assert run.exit_code == 0, run.output
    assert files_with_a_name(node.settings.storage.folder) == set()
    with find_state(node.settings) as state:
        assert state.audit.head()[0] == rows + 1
        (told,) = state.audit.events(9, event=Event.PATIENT_ERASED)
        assert told.subject == node.study
        assert told.details["reason"] == "asked"
        assert told.details["quarantined"] == 1
        verdict = audit_check(state).verify()
        assert verdict.intact, verdict.differences
        with pytest.raises(StateError, match="erased"):
            state.results.manifest_of(1)
    again = CliRunner().invoke(program, [*arguments, "--yes"])
    assert "no stored study has that Patient ID" in str(again.exception)
