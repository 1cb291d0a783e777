"""The whole loop with a real archive: sender -> Orthanc -> node -> Orthanc."""

from __future__ import annotations

import os
import subprocess

import pytest

from rebrain_node.benchmark import dcmtk
from rebrain_node.demonstration.running_node import free_port
from tests.support.orthanc import ORTHANC, Orthanc
from tests.support.quick_node import make_node, wait_for
from tests.support.scripted_ris import a_ris

STORESCU = dcmtk.program("storescu")
pytestmark = pytest.mark.skipif(
    ORTHANC is None or STORESCU is None,
    reason="no Orthanc or no dcmtk: install the Debian packages orthanc and dcmtk",
)


def store(folder, orthanc):
    """Send a folder with dcmtk's storescu."""
    subprocess.run(
        [STORESCU, "-aet", "SENDER", "-aec", "ORTHANC", "+sd", "+r", "-xs", "127.0.0.1",
         str(orthanc.dicom_port), str(folder)],
        env={**os.environ, "TCP_NODELAY": "1"}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def synthetic(series):
    return [count for description, count in series if description.startswith("SYNTH")]


def test_orthanc_gets_the_series_back_once_also_when_it_was_down_and_the_node_restarted(
    tmp_path, quick_bundle, study_folder
):
    """A RIS is told of it once Orthanc has confirmed it, by name of every object."""
    node = make_node(tmp_path, quick_bundle, "ORTHANC", free_port())
    orthanc = Orthanc(tmp_path / "orthanc", node.port)
    node = _pointed_at(tmp_path, node, orthanc)
    with a_ris() as (ris, port):
        _notified(node, port)
        with node.running():
            with orthanc.running():
                store(study_folder, orthanc)
                orthanc.forward_study()
            wait_for(lambda: node.states() and set(node.states().values()) == {"synthesised"})
            wait_for(lambda: _waiting(node), say=node.states)
            assert "pacs" in _waiting(node)[0]
        assert ris.got == []
        with node.running(), orthanc.running():
            wait_for(lambda: set(node.states().values()) == {"published"}, say=node.states)
            after = orthanc.series()
            assert synthetic(after)
            wait_for(lambda: ris.got, say=node.states)
            _send_again(orthanc, node)
            assert orthanc.series() == after
    ((_, told),) = ris.got
    objects = [one for each in told.ReferencedSeriesSequence for one in each.ReferencedSOPSequence]
    assert {one.RetrieveAETitle for one in objects} == {"ORTHANC"}
    sent = len(list(study_folder.glob("*.dcm")))
    assert sent + len(objects) == sum(count for _, count in after)


@pytest.mark.slow
def test_the_hospital_study_comes_back_dense_from_orthanc(tmp_path, shared_data):
    """The shipped bundle on the Toshiba study: 188 instances in, over 120 MR slices back."""
    node = make_node(tmp_path, _shipped_bundle(), "ORTHANC", free_port())
    orthanc = Orthanc(tmp_path / "orthanc", node.port)
    node = _pointed_at(tmp_path, node, orthanc)
    with node.running(), orthanc.running():
        store(shared_data / "ct_toshiba_head_study", orthanc)
        before = orthanc.series()
        assert sum(count for _, count in before) == 188
        orthanc.forward_study()
        wait_for(lambda: "published" in node.states().values(), 240, node.states)
        after = orthanc.series()
        assert max(synthetic(after)) > 120
        assert [each for each in after if not each[0].startswith("SYNTH")] == before
        assert sorted(node.states().values()) == ["published", *["refused"] * 4]
        _send_again(orthanc, node)
        assert orthanc.series() == after


def _shipped_bundle():
    from rebrain_node.app.compose import open_bundle
    from rebrain_node.settings import Settings

    return open_bundle(Settings()).bundle.path


def _pointed_at(tmp_path, node, orthanc):
    """Let the node's destination be this Orthanc."""
    text = node.config.read_text()
    old = node.settings.destinations[0].port
    node.config.write_text(text.replace(f"port = {old}", f"port = {orthanc.dicom_port}"))
    return node


def _notified(node, port):
    """Let the node notify a RIS of what its destination has confirmed."""
    address = f'ae_title = "RIS"\nhost = "127.0.0.1"\nport = {port}\n'
    with node.config.open("a") as stream:
        stream.write(f'[[notifications]]\nname = "ris"\n{address}')


def _waiting(node):
    with node.state() as state:
        return [d.reason for d in state.deliveries.pending() if d.reason]


def _send_again(orthanc, node):
    """Forward everything again, synthetic series included; wait until the node has judged it."""
    orthanc.forward_study()

    def settled():
        ended = {"published", "refused"}
        return set(node.states().values()) <= ended and len(node.states()) > 1

    wait_for(settled, say=node.states)
