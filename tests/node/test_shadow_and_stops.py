"""A real node in shadow mode, then with every stop rule beyond its limit: the PACS gets nothing."""

import json
import time

from typer.testing import CliRunner

from rebrain_node.cli import program
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from tests.support.quick_node import make_node, run, wait_for
from tests.support.store_cases import accept, received

AE_TITLE = "PACS"
#: limits that every result, and every failure, is beyond
STOPS = """
[stop]
least_results = 1
failed_share = 0.0
uncertainty = 0.0001
drift_hu = 0.001
"""
SHADOW = "[shadow]\nactive = true\n"


def test_nothing_reaches_the_pacs_in_shadow_mode_or_while_a_rule_stops_delivery(
    tmp_path, quick_bundle, study_folder
):
    def call(*words, code=0):
        done = CliRunner().invoke(program, [*words, "--config", str(node.config), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def stopped():
        with node.state() as state:
            return sorted(one.rule for one in state.stops.active())

    with MiniPacs(AE_TITLE, tmp_path / "pacs") as pacs:
        node = make_node(tmp_path, quick_bundle, AE_TITLE, pacs.port)
        plain = node.config.read_text() + STOPS
        node.config.write_text(plain + SHADOW)
        with node.running():
            sent = send_files(node.address, AE_TITLE, sorted(study_folder.glob("*.dcm")))
            assert all(one.taken for one in sent), sent
            wait_for(lambda: list(node.states().values()) == ["synthesised"], say=node.states)
            (series,) = node.states()
            status = call("status", "--late-after", "0", code=1)
            assert status["shadow"]["active"]
            assert status["results_kept"] == 1
            assert status["late"] == []
            assert status["why"].startswith("delivery is stopped by the rule")
            call("queue", "verdict", series, "accept", "--reason", "as good as the MR")
            refused = run("outbox", "retry", "1", "--reason", "now", "--config", node.config)
            assert refused.stderr.startswith("rebrain-node: shadow mode is active (shadow.active)")
        assert stopped() == ["drift", "uncertainty"]
        period = time.strftime("%Y-%m-%d/%Y-%m-%d", time.gmtime())
        page = tmp_path / "acceptance.html"
        facts = call("audit", "acceptance", "--period", period, "--out", str(page), code=1)
        assert (facts["studies"], len(facts["results"]), facts["results_outside"]) == (1, 1, 0)
        assert facts["results"][0]["accepted"] is True
        assert "NOT MET" in page.read_text()
        with node.state() as state:
            state.ledger.record_received(received())  # its bytes are missing: the work fails
            accept(state.ledger)
        node.config.write_text(plain)
        with node.running():
            wait_for(lambda: "failures" in stopped(), say=stopped)
            assert stopped() == ["drift", "failures", "uncertainty"]
            assert node.states()[series] == "synthesised", "it is not sent by itself"
            call("outbox", "retry", "1", "--reason", "accepted by the readers")
            assert len(call("stop", "list", code=1)["stops"]) == 3
            for rule in ("drift", "failures", "uncertainty"):
                assert not pacs.instances()
                call("stop", "release", rule, "--reason", "looked at")
            wait_for(lambda: node.states()[series] == "published", say=node.states)
        assert len(pacs.instances()) > 20
        assert stopped() == []
