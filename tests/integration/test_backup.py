"""Backup and restore: a new machine goes on where the old one was, with the same audit log."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.app.backup import MANIFEST, back_up, remove_older, restore
from rebrain_node.app.compose import State, find_state, make_audit_key, open_state
from rebrain_node.app.patient import erase_studies
from rebrain_node.blobs import inbox_blobs
from rebrain_node.cli import program
from rebrain_node.domain.ledger import ReceivedInstance
from rebrain_node.errors import StateError
from rebrain_node.settings import Settings, Storage
from tests.support.store_cases import accept, complete_all, derived_set, received


def settings_of(folder: Path, url: str | None = None) -> Settings:
    return Settings(storage=Storage(folder=folder, database_url=url))


def take(state: State, number: int, study: str = "1.2.1") -> None:
    content = f"instance {number} of {study}".encode()
    one = received(number, f"{study}.1", study)
    blobs = inbox_blobs(state.inbox)
    blobs.prepare()
    digest = blobs.put(content)
    values = {name: getattr(one, name) for name in ReceivedInstance.__dataclass_fields__}
    values |= {"sha256": digest, "size_bytes": len(content), "path": str(blobs.path(digest))}
    state.ledger.record_received(ReceivedInstance(**values))


def filled(settings: Settings) -> None:
    """A node with a published set, a study in reception, a key and a checkpoint."""
    with open_state(settings) as state:
        make_audit_key(state)
        for number in range(1, 4):
            take(state, number)
        job = accept(state.ledger)
        state.outbox.put(derived_set(job), ("pacs",), job)
        state.audit.checkpoint()
        take(state, 1, "1.2.2")


def facts(settings: Settings) -> tuple[object, ...]:
    with find_state(settings) as state:
        return (
            [(r.series_instance_uid, r.state, r.revision) for r in state.ledger.series()],
            state.deliveries.waiting("pacs"),
            [(e.sequence, e.event) for e in state.audit.events(100)],
        )


@pytest.mark.parametrize(
    ("before", "after"),
    [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "postgresql")],
)
def test_a_new_machine_has_the_facts_the_bytes_and_the_log(tmp_path, request, before, after):
    def url(kind: str) -> str | None:
        if kind == "sqlite":
            return None
        return request.getfixturevalue("postgres_cluster").new_database()

    old, new = settings_of(tmp_path / "old", url(before)), settings_of(tmp_path / "new", url(after))
    filled(old)
    known = facts(old)
    target, manifest = back_up(old, None, tmp_path / "backups")
    assert manifest.lost == ()
    shutil.rmtree(tmp_path / "old")
    restored = restore(new, target)
    assert (restored.storage, restored.audit) == ((), ())
    rows = facts(new)
    assert rows[:2] == known[:2]
    assert rows[2][:-1] == known[2]
    assert rows[2][-1][1] == "backup.restored"
    with open_state(new) as state:
        take(state, 2, "1.2.2")  # ids and key go on
        assert state.audit.checkpoint() is not None


def test_a_file_that_is_removed_while_it_is_copied_is_not_missed(tmp_path, monkeypatch):
    """An erasure between database and files: the patient is in neither."""
    from rebrain_node.store import snapshot

    settings = settings_of(tmp_path / "node")
    filled(settings)
    first, taken = snapshot.take_snapshot, []

    def then_erase(url, path):
        first(url, path)
        if not taken:
            with find_state(settings) as state:
                complete_all(state.ledger)
                state.ledger.cancel("1.2.2.1", operator="mtra", reason="asked")
                list(erase_studies(state, ("1.2.2",), "asked"))
        taken.append(path)

    monkeypatch.setattr(snapshot, "take_snapshot", then_erase)
    target, manifest = back_up(settings, None, tmp_path / "backups")
    assert len(taken) > 1
    assert manifest.lost == ()
    restored = restore(settings_of(tmp_path / "new"), target)
    assert (restored.storage, restored.audit) == ((), ())
    with find_state(settings_of(tmp_path / "new")) as state:
        assert [e.subject for e in state.audit.events(9, event="patient.erased")] == ["1.2.2"]


def test_what_is_lost_is_named_and_the_rest_is_copied(tmp_path):
    settings = settings_of(tmp_path / "node")
    filled(settings)
    victim = next((tmp_path / "node/inbox").glob("*/*"))
    victim.write_bytes(b"altered")
    result = CliRunner().invoke(
        program,
        ["backup", str(tmp_path / "backups"), "--json"],
        env={"REBRAIN_STORAGE__FOLDER": str(tmp_path / "node")},
    )
    assert result.exit_code == 1
    assert victim.name in result.stderr
    assert json.loads(result.stdout)["blobs"] > 2


def test_a_state_that_is_there_is_never_overwritten(tmp_path):
    settings = settings_of(tmp_path / "node")
    filled(settings)
    target, _ = back_up(settings, None, tmp_path / "backups")
    before = {p: p.read_bytes() for p in (tmp_path / "node").rglob("*") if p.is_file()}
    with pytest.raises(StateError, match="nothing was restored"):
        restore(settings, target)
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("name", [MANIFEST, "node.sqlite", "audit.key"])
def test_an_altered_or_partial_backup_is_refused_before_anything_is_written(tmp_path, name):
    filled(settings_of(tmp_path / "node"))
    target, _ = back_up(settings_of(tmp_path / "node"), None, tmp_path / "backups")
    (target / name).write_bytes(b"{}")
    with pytest.raises(StateError, match="backup"):
        restore(settings_of(tmp_path / "new"), target)
    assert not (tmp_path / "new").exists()


def test_a_backup_of_a_newer_version_is_refused_with_the_remedy(tmp_path):
    filled(settings_of(tmp_path / "node"))
    target, _ = back_up(settings_of(tmp_path / "node"), None, tmp_path / "backups")
    with closing(sqlite3.connect(target / "node.sqlite")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    manifest = json.loads((target / MANIFEST).read_text())
    from rebrain_node.app.backup import _sha256

    manifest["files"]["node.sqlite"] = _sha256(target / "node.sqlite")
    (target / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StateError, match="install the version that made it"):
        restore(settings_of(tmp_path / "new"), target)


def test_a_backup_within_the_state_is_refused(tmp_path):
    settings = settings_of(tmp_path / "state")
    filled(settings)
    (tmp_path / "link").symlink_to(settings.storage.folder)
    for parent in (settings.storage.folder, tmp_path / "link/backups"):
        with pytest.raises(StateError, match="name a folder on another disk"):
            back_up(settings, None, parent)
    assert not (settings.storage.folder / "backups").exists()


def test_only_the_newest_backups_are_kept_and_nothing_else_is_removed(tmp_path):
    settings = settings_of(tmp_path / "node")
    filled(settings)
    parent = tmp_path / "backups"
    for day in ("01", "02", "03"):
        target, _ = back_up(settings, None, parent)
        target.rename(parent / f"rebrain-node-202611{day}T000000Z")
    (parent / "rebrain-node-20261001T000000Z").mkdir()  # not a backup: it has no manifest
    removed = remove_older(parent, 2)
    assert [path.name for path in removed] == ["rebrain-node-20261101T000000Z"]
    assert (parent / "rebrain-node-20261001T000000Z").is_dir()


def test_the_settings_and_the_bundle_are_in_the_backup(tmp_path):
    settings = settings_of(tmp_path / "node")
    filled(settings)
    config = tmp_path / "site.toml"
    config.write_text("workers = 1\n")
    target, manifest = back_up(settings, config, tmp_path / "backups")
    assert (target / "settings/node.toml").read_text() == "workers = 1\n"
    assert "settings/node.toml" in manifest.files
    assert all(p.stat().st_mode & 0o077 == 0 for p in target.rglob("*"))
