"""SIGHUP: a running node reads peers and limits again, and says what waits for a restart."""

import json
import signal

import pytest

from rebrain_node.app.compose import read_bundle
from rebrain_node.app.reloading import CurrentConfiguration
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.errors import DeliveryError, SettingsError
from rebrain_node.network.sender import echo
from tests.support.quick_node import ROOT, make_node, wait_for


def lines(node, event):
    """What the processes logged of an event."""
    found = []
    for log in node.folder.glob("serve-*.log"):
        found += [json.loads(line) for line in log.read_text().splitlines() if event in line]
    return found


def reloaded(node, process, number):
    return len([one for one in lines(node, "read again") if one["process"] == process]) == number


def test_a_new_peer_is_admitted_and_an_unfit_file_changes_nothing(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, "PACS", free_port())
    first = node.config.read_text()
    with node.running() as process:
        with pytest.raises(DeliveryError):
            echo(node.address, "CT2")
        second = first.replace(
            "[completeness]", '[[receiver.peers]]\nae_title = "CT2"\n[completeness]'
        ).replace("quiet_period_s = 1.0", "quiet_period_s = 2.0")
        node.config.write_text(second)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloaded(node, "receiver", 1) and reloaded(node, "worker-1", 1))
        echo(node.address, "CT2")
        echo(node.address, "PACS")
        node.config.write_text(second.replace('"PACS"', '"A TITLE THAT IS TOO LONG"'))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloaded(node, "receiver", 2) and reloaded(node, "worker-1", 2))
        echo(node.address, "CT2")
        node.config.write_text(second)
    (read,) = [one for one in lines(node, "settings read again") if one["process"] == "receiver"]
    assert read["taken"] == ["receiver.peers"]
    assert read["need_restart"] == ["completeness.quiet_period_s"]
    (kept,) = [one for one in lines(node, "not read again") if one["process"] == "receiver"]
    assert "ae_title" in kept["reason"]
    with node.state() as state:
        events = state.audit.events(100, event="settings.reloaded")
    assert {event.subject for event in events} == {"receiver", "worker-1"}


def test_limits_are_taken_from_the_next_series_on_and_unfit_ones_are_not(tmp_path, quick_bundle):
    limits = tmp_path / "limits.toml"
    limits.write_text((ROOT / "conf/limits.toml").read_text())
    node = make_node(tmp_path, quick_bundle, "PACS", free_port())
    node.config.write_text(f'limits = "{limits}"\n{node.config.read_text()}')
    settings = node.settings
    current = CurrentConfiguration(settings, read_bundle(settings).digest)
    before = current()
    assert current.take_limits(settings) == []
    assert current() is before
    limits.write_text(f"{limits.read_text()}\n[unknown]\n")
    with pytest.raises(SettingsError, match="unknown"):
        current.take_limits(settings)
    assert current() is before
    limits.write_text((ROOT / "conf/limits.toml").read_text().replace("[12, 400]", "[13, 400]"))
    assert current.take_limits(settings) == ["limits"]
    assert current().limits.series.slices[0] == 13
    assert current().digest != before.digest
