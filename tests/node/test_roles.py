"""A node of three machines: one receives, one synthesises, one delivers."""

import json
from contextlib import ExitStack

from rebrain_node.demonstration.running_node import free_port
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from tests.support.quick_node import Node, make_node, run, wait_for

ROLES = ("receiver", "worker", "delivery")


def machine(role, node, url):
    """Settings of one machine of a node, as those of ``node`` save folder, name and database."""
    folder = node.folder / role
    folder.mkdir()
    own = f'[storage]\ndatabase_url = "{url}"\nmachine_folder = "{folder}/own"\n'
    text = f'machine = "{role}-1"\n' + node.config.read_text().replace("[storage]", own)
    made = Node(folder, node.port)
    made.config.write_text(text)
    return made


def test_a_study_goes_through_three_machines_and_status_of_each_lists_all(
    tmp_path, quick_bundle, study_folder, postgres_url
):
    with MiniPacs("PACS", tmp_path / "pacs") as pacs, ExitStack() as stack:
        node = make_node(tmp_path, quick_bundle, "PACS", pacs.port)
        machines = {role: machine(role, node, postgres_url) for role in ROLES}
        for role, each in machines.items():
            stack.enter_context(each.running(role=role))
        receiver = machines["receiver"]
        sent = send_files(receiver.address, "PACS", sorted(study_folder.glob("*.dcm")))
        assert all(one.taken for one in sent)
        wait_for(lambda: list(receiver.states().values()) == ["published"], say=receiver.states)
        assert len(pacs.instances()) > 20
        answer = run("status", "--config", machines["delivery"].config, "--json")
        assert answer.returncode == 0, answer.stderr
        processes = json.loads(answer.stdout)["processes"]
    assert [(each["machine"], each["process"], each["duties"]) for each in processes] == [
        ("delivery-1", "delivery", ["delivery"]),
        ("receiver-1", "receiver", ["listening"]),
        ("worker-1", "worker-1", ["judging"]),
    ]
    assert {each["state"] for each in processes} == {"runs"}
    with receiver.state() as state:
        assert state.executors.all() == ()  # all have left in order
        assert state.audit.verify().intact


def test_a_part_of_a_node_on_sqlite_is_refused_with_the_remedy(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, "PACS", free_port())
    answer = run("serve", "--role", "worker", "--config", node.config)
    assert answer.returncode == 2
    assert "set storage.database_url to a PostgreSQL database" in answer.stderr
