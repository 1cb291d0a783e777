"""A preferred series whose volume is refused makes way for the next, and both are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from rebrain_node.domain.audit import Event
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from tests.support import phantoms
from tests.support.quick_node import make_node, run, wait_for

AE_TITLE = "PACS"
PREFERRED = {"series_number": 2, "metal": True, "slice_thickness_mm": 6.0}
NEXT = {"series_number": 3, "series_description": "Head 5.0 again"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str, str]:
    """A study whose thick series shows metal, as files; UIDs of the thick and of the thin one."""
    folder = tmp_path_factory.mktemp("study")
    uids = []
    for changes in (PREFERRED, NEXT):
        series = phantoms.head_ct(**changes, manufacturer="SIEMENS")
        phantoms.write(series, folder / str(changes["series_number"]))
        uids.append(str(series[0].SeriesInstanceUID))
    return folder, *uids


def reports(paths):
    return [d for path in paths if (d := dcmread(path)).Modality == "SR"]


def test_process_takes_the_next_series_and_tells_of_both(study, quick_bundle, tmp_path):
    folder, preferred, taken = study
    result = run("process", folder, "--out", tmp_path, "--json", bundle_folder=quick_bundle)
    answer = json.loads(result.stdout)
    series = {one["series_instance_uid"]: one for one in answer["series"]}
    assert series[preferred]["decision"] == "refused"
    assert series[preferred]["codes"][0] == "METAL"
    assert series[taken]["decision"] == "accepted"
    assert series[taken]["codes"] == ["SECOND-CHOICE", "NO-DOMAIN"]
    assert "series 2 of the study was tried first" in series[taken]["sentence"]
    assert "METAL" in series[taken]["sentence"]
    (report,) = reports(answer["outputs"])
    assert "SECOND-CHOICE" in str(report)


@pytest.mark.slow
def test_serve_takes_the_next_series_once_also_after_a_restart(study, quick_bundle, tmp_path):
    folder, preferred, taken = study
    with MiniPacs(AE_TITLE, tmp_path / "pacs") as pacs:
        node = make_node(tmp_path, quick_bundle, AE_TITLE, pacs.port)
        with node.running():
            sent = send_files(node.address, AE_TITLE, sorted(folder.rglob("*.dcm")))
            assert all(one.taken for one in sent)
            wait_for(lambda: node.states().get(preferred) == "refused", say=node.states)
        with node.running():
            wait_for(lambda: node.states().get(taken) == "published", say=node.states)
            shown = run("queue", "show", taken, "--config", node.config).stdout
        with node.state() as state:
            made = [row.subject for row in state.audit.events(500, event=Event.SERIES_SYNTHESISED)]
            accepted = [row.subject for row in state.audit.events(500, event=Event.SERIES_ACCEPTED)]
            assert state.audit.verify().intact
        assert (accepted, made) == ([preferred, taken], [taken])
        assert "SECOND-CHOICE" in shown
        (report,) = reports(pacs.instances())
    assert "SECOND-CHOICE" in str(report)
    assert node.states()[preferred] == "refused"
