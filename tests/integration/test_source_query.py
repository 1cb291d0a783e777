"""How many instances a series has: asked of Orthanc, of dcmtk and of peers that answer oddly."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from typer.testing import CliRunner

from rebrain_node import cli
from rebrain_node.app.tasks import source_names, try_source
from rebrain_node.benchmark.dcmtk import program
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network import query
from rebrain_node.network.dicomweb import WebSource
from rebrain_node.network.query import DicomSource, stated_count
from rebrain_node.network.sender import PacsDestination
from rebrain_node.settings import DicomRemote, Settings, WebRemote
from tests.integration.test_dicomweb import a_server
from tests.integration.test_query import mr
from tests.support.orthanc import DICOMWEB, ORTHANC, Orthanc
from tests.support.quick_node import wait_for
from tests.support.scripted_pacs import settings_for

DCMQRSCP, ECHO = program("dcmqrscp"), program("echoscu")
STUDY, SERIES = "2.25.77", "2.25.78"  # of `mr`
UIDS = [mr(n).sop_instance_uid for n in range(1, 4)]
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def source(port: int, ae_title: str = "PACS", timeout_s: float = 5.0) -> DicomSource:
    remote = DicomRemote(
        name="archive", ae_title=ae_title, host="127.0.0.1", port=port, timeout_s=timeout_s
    )
    return DicomSource(remote, "REBRAIN")


def web_source(url: str) -> WebSource:
    return WebSource(WebRemote(name="archive", url=url, timeout_s=10.0))


def asked(one: DicomSource | WebSource, held: int) -> tuple[int, int]:
    """Number of instances there, and of those that it lists."""
    answer = one.ask(STUDY, {SERIES: held})[SERIES]
    return answer.count, len(answer.uids)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if ORTHANC is None or DICOMWEB is None:
        pytest.skip("Debian packages orthanc and orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc") / "archive"
    with Orthanc(folder, 104, plugins=[DICOMWEB]).running() as archive:
        PacsDestination(settings_for(archive.dicom_port, ae_title="ORTHANC"), "REBRAIN").send(
            [mr(n) for n in range(1, 4)]
        )
        yield archive


@pytest.fixture(params=["C-FIND", "QIDO-RS"])
def orthanc(archive: Orthanc, request: pytest.FixtureRequest) -> DicomSource | WebSource:
    if request.param == "C-FIND":
        return source(archive.dicom_port, "ORTHANC")
    return web_source(f"{archive.url}/dicom-web")


@pytest.mark.parametrize(("held", "listed"), [(3, 3), (2, 0), (4, 0)])
def test_orthanc_counts_and_lists_where_the_number_agrees(orthanc, held: int, listed: int) -> None:
    assert asked(orthanc, held) == (3, listed)


def test_orthanc_names_what_it_lists(orthanc) -> None:
    assert orthanc.ask(STUDY, {SERIES: 3})[SERIES].uids == frozenset(UIDS)


def test_orthanc_knows_nothing_of_another_series(orthanc) -> None:
    answers = orthanc.ask(STUDY, {"2.25.404": 3, SERIES: 3})
    assert (answers["2.25.404"].count, answers[SERIES].count) == (0, 3)


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[int]:
    port, storage = free_port(), folder / "storage"
    storage.mkdir()
    (folder / "qr.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {storage} RW (10, 64mb) ANY\nAETable END\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(DCMQRSCP), "-c", str(folder / "qr.cfg")],
            stdout=log, stderr=log, env={"TCP_NODELAY": "1"},
        )  # fmt: skip
    try:
        echo = [str(ECHO), "-aec", "PACS", "127.0.0.1", str(port)]
        wait_for(lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0, 30)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.skipif(DCMQRSCP is None or ECHO is None, reason="Debian package dcmtk")
def test_dcmtk_lists_what_it_does_not_count(tmp_path: Path) -> None:
    with dcmqrscp(tmp_path) as port:
        PacsDestination(settings_for(port), "REBRAIN").send([mr(n) for n in range(1, 4)])
        assert asked(source(port), 3) == (3, 3)
        assert asked(source(port), 2) == (3, 3)
        assert source(port).ask(STUDY, {"2.25.404": 1})["2.25.404"].count == 0


@contextmanager
def a_source(series=(), images=UIDS, *, final: int | None = 0x0000, offers=True) -> Iterator[int]:
    """A peer that answers C-FIND with these keywords; without ``final`` its answers do not end."""
    stop = threading.Event()

    def find(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        level = event.identifier.QueryRetrieveLevel
        values = series if level == "SERIES" else [{"SOPInstanceUID": uid} for uid in images]
        for each in values:
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for keyword, value in each.items():
                setattr(answer, keyword, value)
            yield 0xFF00, answer
        if final is None:
            stop.wait(20)
        yield final or 0x0000, None

    entity = AE(ae_title="PACS")
    entity.require_called_aet = True
    entity.add_supported_context("1.2.840.10008.1.1")
    if offers:
        entity.add_supported_context(STUDY_ROOT_FIND)
    handlers = [(evt.EVT_C_FIND, find)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        stop.set()
        server.shutdown()


def counted_as(text: object, series: str = SERIES) -> dict[str, object]:
    return {"SeriesInstanceUID": series, "NumberOfSeriesRelatedInstances": text}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([counted_as("3")], (3, 3)),
        ([counted_as(" 5 ")], (5, 0)),
        ([{"SeriesInstanceUID": SERIES}], (3, 3)),  # no such element
        ([counted_as(None)], (3, 3)),
        ([{"NumberOfSeriesRelatedInstances": "5"}], (5, 0)),  # the key is not repeated
        ([counted_as("9", "2.25.79"), counted_as("5"), counted_as("8", "2.25.80")], (5, 0)),
        ([counted_as("9", "2.25.79")], (3, 3)),  # about another series alone
        ([counted_as("5"), counted_as("6")], (3, 3)),  # two numbers contradict each other
        ([counted_as("0")], (3, 3)),  # what it lists counts
        ([], (3, 3)),
    ],
)
def test_odd_answers_are_read_or_the_instances_are_listed(series, expected) -> None:
    with a_source(series) as port:
        assert asked(source(port), 3) == expected


def test_a_source_that_neither_counts_nor_lists_has_nothing() -> None:
    with a_source(images=[]) as port:
        assert asked(source(port), 3) == (0, 0)


def test_instances_that_are_listed_twice_count_once() -> None:
    with a_source(images=[*UIDS, *UIDS, ""]) as port:
        assert asked(source(port), 3) == (3, 3)


@pytest.mark.parametrize("text", ["", "many", "-1", "3.5", "3\\4", "1" * 12, "\uff13"])
def test_a_number_that_is_none_says_nothing(text: str) -> None:
    answer = Dataset()
    answer.add_new(0x00201209, "LO", text)
    assert stated_count([answer], SERIES) is None


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC001, 0xFE00, 0x0122])
def test_a_refused_query_is_no_answer(status: int) -> None:
    said = pytest.raises(DeliveryError, match=f"0x{status:04X}")
    with a_source([counted_as("3")], final=status) as port, said:
        source(port).ask(STUDY, {SERIES: 3})


def test_answers_without_an_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said = pytest.raises(DeliveryError, match="nothing in time")
    with a_source([counted_as("3")], final=None) as port, said:
        source(port, timeout_s=0.5).ask(STUDY, {SERIES: 3})
    monkeypatch.setattr(query, "MAXIMUM_ANSWERS", 4)
    said = pytest.raises(DeliveryError, match="did not end its answers")
    with a_source([counted_as("3")] * 9) as port, said:
        source(port).ask(STUDY, {SERIES: 3})


def test_a_source_that_cannot_be_asked_says_why() -> None:
    said = pytest.raises(QueryNotOfferedError, match=r"source archive .* does not accept C-FIND")
    with a_source(offers=False) as port, said:
        source(port).ask(STUDY, {SERIES: 3})
    said = pytest.raises(DeliveryError, match="correct ae_title of this source")
    with a_source() as port, said:
        source(port, "OTHER").ask(STUDY, {SERIES: 3})
    with pytest.raises(DeliveryError, match="check host and port of this source"):
        source(port).ask(STUDY, {SERIES: 3})


def as_json(number: object) -> dict[str, object]:
    return {
        "0020000E": {"vr": "UI", "Value": [SERIES]},
        "00201209": {"vr": "IS", "Value": [number]},
        "00080018": {"vr": "UI", "Value": ["2.25.1001"]},
    }


@pytest.mark.parametrize("number", [7, "7", 7.0], ids=["number", "text", "decimal"])
def test_a_server_that_writes_the_number_otherwise_is_understood(number: object) -> None:
    with a_server(200, [as_json(number)]) as (_, url):
        assert asked(web_source(url), 3) == (7, 0)


def test_a_server_that_answers_one_page_to_every_question_is_not_asked_for_ever() -> None:
    with a_server(200, [as_json(1)]) as (_, url):
        assert asked(web_source(url), 1) == (1, 1)


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (404, [], "HTTP 404"),
        (503, [], "HTTP 503"),
        (200, b"<html>sign in</html>", "something else than DICOM JSON"),
        (200, ["text"], "something else than DICOM JSON"),
        (200, [{"0020000E": 7}], "something else than DICOM JSON"),
    ],
)
def test_a_server_that_does_not_answer_as_it_should_is_no_source(status, answer, words) -> None:
    with a_server(status, answer) as (_, url), pytest.raises(DeliveryError, match=words):
        web_source(url).ask(STUDY, {SERIES: 3})


def test_a_server_with_nothing_has_nothing() -> None:
    with a_server(204, b"") as (_, url):
        assert asked(web_source(url), 3) == (0, 0)


def with_sources(**sections: object) -> Settings:
    return Settings(receiver={"ae_title": "REBRAIN"}, **sections)  # type: ignore[arg-type]


def archive_at(port: int) -> Settings:
    remote = {"name": "archive", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    return with_sources(sources=[{**remote, "timeout_s": 5.0}])


def test_a_source_is_tried_with_an_echo_and_a_query() -> None:
    with a_source(images=[]) as port:
        said = try_source(archive_at(port), "archive")
    assert re.fullmatch(r"answered C-ECHO in \d+ ms and C-FIND in \d+ ms", said)


def test_orthanc_is_tried_by_both_ways(archive: Orthanc) -> None:
    settings = with_sources(
        sources=[
            {"name": "a", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom_port}
        ],
        dicomweb_sources=[{"name": "b", "url": f"{archive.url}/dicom-web"}],
    )
    assert source_names(settings) == ("a", "b")
    assert "C-FIND" in try_source(settings, "a")
    assert re.fullmatch(r"answered QIDO-RS in \d+ ms", try_source(settings, "b"))


@pytest.mark.parametrize(
    ("peer", "sentence"),
    [
        ({"offers": False}, "C-FIND .*; allow queries of AE title REBRAIN there"),
        ({"final": 0xA700}, "answered 0xA700 to C-FIND; allow queries"),
        ({"images": UIDS}, "3 instances of a series that nobody has: it ignores Series Instance"),
    ],
)
def test_a_source_that_cannot_be_asked_is_named_with_the_remedy(peer, sentence) -> None:
    with a_source(**peer) as port, pytest.raises(DeliveryError, match=sentence):
        try_source(archive_at(port), "archive")


def test_a_source_that_is_down_is_named_with_the_remedy() -> None:
    with pytest.raises(DeliveryError, match="check"):
        try_source(archive_at(free_port()), "archive")


def test_doctor_has_a_line_for_each_source(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    with a_source(images=[]) as port:
        config.write_text(
            f'[storage]\nfolder = "{tmp_path}"\n[[sources]]\nname = "archive"\n'
            f'ae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
            f'[[dicomweb_sources]]\nname = "web"\nurl = "http://127.0.0.1:{free_port()}/rs"\n'
        )
        result = CliRunner().invoke(cli.program, ["doctor", "--config", str(config), "--json"])
    rows = {each["what"]: each for each in json.loads(result.stdout)["checks"]}
    assert rows["source archive"]["fit"]
    assert not rows["source web"]["fit"]
    assert "check url and token_file" in rows["source web"]["found"]
    assert result.exit_code == 1
