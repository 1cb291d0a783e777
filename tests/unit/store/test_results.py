"""The block Result: every question of a quality officer has its field."""

from __future__ import annotations

from dataclasses import replace

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.guidance import COLUMNS
from rebrain_node.domain.text import ranges
from rebrain_node.store.results import Results
from tests.support.outbox_node import outbox_node
from tests.support.store_cases import accept, answers, derived_set, received

SUBJECTS = ("a" * 32, "b" * 32)


def guided(*exemplars):
    """Details of ``series.guided`` with one slice for each exemplar, None a measured one."""
    at = COLUMNS.index("exemplar")
    slices = [[one if k == at else None for k in range(len(COLUMNS))] for one in exemplars]
    kinds = {"measured": exemplars.count(None), "retrieved": len(exemplars) - 1, "interpolated": 0}
    return {"revision": 1, "kinds": kinds, "slices": slices}


def test_the_result_names_who_made_it_of_whom_how_sure_and_who_has_it():
    first, second = (f"{one}{'0' * 16}" for one in SUBJECTS)
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        log, series = node.audit, job.series_instance_uid
        signed = {"name": "x", "version": "1", "signed_by": {"name": "site", "key": "0"}}
        log.record(Event.BUNDLE_VERIFIED, "1" * 64, signed)
        log.record(Event.SERIES_GUIDED, series, guided(None, first, first, second))
        log.record(Event.SERIES_RECOGNISED, series,
                   {"revision": 1, "score": 0.866, "threshold": 2.246})  # fmt: skip
        log.record(Event.SERIES_UNCERTAINTY, series,
                   {"revision": 1, "mean": 0.225, "label": "UNCALIBRATED", "untrusted": [2, 3]},
                   )  # fmt: skip
        derived = derived_set(job)
        set_id = node.outbox.put(derived, ["pacs", "web"], job)
        node.deliveries.record(set_id, "pacs", answers(derived.instances))
        held = [HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
                for one in derived.instances]  # fmt: skip
        node.confirmations.verify(set_id, "pacs", held)
        result = Results(node.database).of_series(series)
    rows = dict(result.rows())
    assert rows["source series"] == series
    assert rows["MR series"] == derived.instances[0].series_instance_uid
    assert rows["bundle"] == "tiny 1, signed by site"
    assert rows["slices by kind"] == "1 measured, 3 retrieved"
    assert rows["exemplars"] == "2 of 2 subjects, for 3 slices"
    assert rows[f"subject {'a' * 16}"] == "slices 2-3"
    assert rows["mean uncertainty"] == "0.225 of the display range, UNCALIBRATED"
    assert rows["slices not to be trusted"] == "2: 2-3"
    assert rows["OOD score"] == "0.866 (limit 2.25)"
    assert rows["objects"] == "2 MR, 1 KOS (set 1)"
    assert rows["delivered to web"] == "3 pending; not confirmed"
    assert rows["delivered to pacs"].startswith("3 confirmed; accepted 20")
    assert rows["delivered to pacs"].count("Z; confirmed 20") == 1
    assert rows["made"].endswith("Z")
    assert result.to_json()["subjects"][0]["slices"] == (2, 3)
    assert result.to_json()["destinations"][0]["confirmed_at"].endswith("Z")


def test_what_an_earlier_version_did_not_record_is_said_to_be_missing():
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        node.outbox.put(derived_set(job), [], job)
        rows = dict(Results(node.database).of_series("1.2.1.1").rows())
        assert Results(node.database).of_series("1.2.1.2") is None
    assert rows["mean uncertainty"] == rows["slices not to be trusted"] == "not recorded"
    assert rows["bundle"].endswith("signed by nobody")
    assert rows["exemplars"] == "none: no slice was guided"
    assert rows["delivered"] == "to nobody: no destination is set"


def test_a_recalled_result_says_so_and_does_not_count_the_note():
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        derived = derived_set(job)
        set_id = node.outbox.put(derived, ["pacs"], job)
        node.deliveries.record(set_id, "pacs", answers(derived.instances))
        note = replace(derived.instances[0], sop_instance_uid="2.25.9", kind="KOS", content=b"n")
        before = Results(node.database).of_series("1.2.1.1").destinations
        node.outbox.add_note(set_id, note, "wrong bundle", "someone")
        node.deliveries.record(set_id, "pacs", answers([note]))
        result = Results(node.database).of_series("1.2.1.1")
    rows = dict(result.rows())
    assert result.destinations == before
    assert rows["RECALLED"].endswith("Z: wrong bundle")
    assert rows["objects"] == "2 MR, 1 KOS (set 1)"


def test_only_the_newest_revision_and_the_last_word_on_it_count():
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        for mean in (0.5, 0.25):
            node.audit.record(Event.SERIES_UNCERTAINTY, "1.2.1.1",
                              {"revision": 1, "mean": mean, "label": "x", "untrusted": []}
                              )  # fmt: skip
        node.audit.record(Event.SERIES_UNCERTAINTY, "1.2.1.1", {"revision": 2, "mean": 0.75})
        node.outbox.put(derived_set(job), [], job)
        result = Results(node.database).of_series("1.2.1.1")
    assert result.uncertainty == 0.25


def test_runs_of_numbers_are_joined():
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges([]) == ""
