"""Upgrade and downgrade with work in flight: an older schema is brought up, a newer one refused."""

from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import SCHEMA_REVISION, Database, checked_url
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.migration import configuration, downgrade
from rebrain_node.store.outbox import Outbox
from tests.support import phantoms
from tests.support.quick_node import make_node, quick_study, run, wait_for, write_quick_bundle
from tests.support.store_cases import accept, answers, derived_set, received


def to_the_schema_before(url: str) -> str:
    engine = create_engine(checked_url(url))
    with engine.begin() as connection:
        script = ScriptDirectory.from_config(configuration(connection))
        before = str(script.get_revision(SCHEMA_REVISION).down_revision)
        downgrade(connection, before)
    engine.dispose()
    return before


def revision(url: str) -> str:
    engine = create_engine(checked_url(url))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    engine.dispose()
    return str(found)


def test_what_waited_under_the_schema_before_is_made_and_delivered(database_url, tmp_path):
    with Database.open(database_url) as database:
        ledger = Ledger(database)
        ledger.record_received(received(1, "1.2.1.1", "1.2.1"))
        made = accept(ledger, "1.2.1.1", "1.2.1")
        number = Outbox(database, tmp_path / "outbox").put(derived_set(made), ("pacs",), made)
        ledger.record_received(received(1, "1.2.2.1", "1.2.2"))
        waiting = accept(ledger, "1.2.2.1", "1.2.2")
        ledger.record_received(received(1, "1.2.3.1", "1.2.3"))
    before = to_the_schema_before(database_url)
    assert revision(database_url) == before
    with Database.open(database_url) as database:
        outbox, deliveries = Outbox(database, tmp_path / "outbox"), Deliveries(database)
        second = outbox.put(derived_set(waiting), ("pacs",), waiting)
        for each in (number, second):
            deliveries.record(each, "pacs", answers(outbox.instances_of(each)))
        ledger = Ledger(database)
        accept(ledger, "1.2.3.1", "1.2.3")
        states = {one.series_instance_uid: one.state for one in ledger.series()}
        assert states == {"1.2.1.1": "published", "1.2.2.1": "published", "1.2.3.1": "accepted"}
        assert AuditLog(database).verify().intact
    assert revision(database_url) == SCHEMA_REVISION


def test_an_older_version_ends_with_one_line_that_names_the_remedy(tmp_path):
    Database.open(f"sqlite:///{tmp_path}/node.sqlite").close()
    engine = create_engine(f"sqlite:///{tmp_path}/node.sqlite")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path}"\n')
    result = run("queue", "list", "--config", config)
    assert result.returncode == 1
    assert "install the newer version or restore the backup" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert revision(f"sqlite:///{tmp_path}/node.sqlite") == "9999"


@pytest.mark.full
def test_a_node_finishes_the_study_that_was_taken_under_the_schema_before(tmp_path):
    """And on a new machine: backed up while it waits, restored, published there."""
    study = tmp_path / "study"
    study.mkdir()
    phantoms.write(quick_study(), study)
    old = tmp_path / "old"
    old.mkdir()
    with MiniPacs("PACS", tmp_path / "pacs") as pacs:
        node = make_node(old, write_quick_bundle(tmp_path / "quick"), "PACS", pacs.port)
        with node.running():
            sent = send_files(node.address, "PACS", sorted(study.glob("*.dcm")))
            assert all(one.taken for one in sent)
        to_the_schema_before(f"sqlite:///{old}/state/node.sqlite")
        assert run("queue", "list", "--config", node.config).returncode == 0
        backed = run("backup", tmp_path / "backups", "--config", node.config)
        assert backed.returncode == 0, backed.stderr
        (old / "state").rename(tmp_path / "lost")
        (backup,) = (tmp_path / "backups").iterdir()
        restored = run("restore", backup, "--config", node.config)
        assert restored.returncode == 0, restored.stderr
        with node.running():
            wait_for(lambda: list(node.states().values()) == ["published"], say=node.states)
        assert len(pacs.instances()) > 20
    verified = run("audit", "verify", "--config", node.config)
    assert verified.returncode == 0, verified.stderr
