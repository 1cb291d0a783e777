"""Short ids: what logs and tables show, every command takes; ambiguity is named."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rebrain_node.domain.text import reference
from rebrain_node.errors import StateError
from rebrain_node.store.short_names import ShortNames
from tests.support.outbox_node import outbox_node
from tests.support.store_cases import accept, derived_set, received


@pytest.fixture(scope="module")
def node():
    with outbox_node() as node:
        for k in range(100):
            node.ledger.record_received(received(1, series=f"1.2.{k}.1", study=f"1.2.{k}"))
        yield node


@pytest.fixture(scope="module")
def names(node):
    return ShortNames(node.database)


@pytest.mark.parametrize(
    "said", ["1.2.7.1", "1.2.7.", reference("1.2.7.1"), reference("1.2.7.1")[:8]]
)
def test_a_series_is_found_by_uid_or_id_or_the_beginning_of_either(names, said):
    assert names.series(said) == "1.2.7.1"
    assert names.subject(said) in ("1.2.7.1", "1.2.7")


def test_a_whole_uid_means_itself_although_others_begin_with_it(names):
    assert names.study("1.2.3") == "1.2.3"
    assert names.study("1.2.99") == "1.2.99"


def test_an_ambiguous_beginning_is_answered_with_what_it_may_mean(names):
    with pytest.raises(StateError, match=r"several series: [0-9a-f]{12} \(1\.2\.9.*give more"):
        names.series("1.2.9")


def test_an_ambiguous_id_is_answered_with_what_it_may_mean(node):
    ids = sorted(reference(f"1.2.{k}.1") for k in range(4000))
    twin = next(a[:4] for a, b in pairwise(ids) if a[:4] == b[:4])
    uids = [f"1.2.{k}.1" for k in range(4000) if reference(f"1.2.{k}.1").startswith(twin)]
    for uid in uids:
        node.ledger.record_received(received(1, series=uid, study=uid[:-2]))
    with pytest.raises(StateError, match=uids[0].replace(".", r"\.")):
        ShortNames(node.database).series(twin)


@pytest.mark.parametrize("said", ["1.9.9", "ffffffffffff", "ce", "%", "1.2%", "x" * 99, ""])
def test_what_names_no_series_is_answered_with_where_to_look(names, said):
    with pytest.raises(StateError, match="queue list"):
        names.series(said)
    assert names.study(said) is None
    assert names.subject(said) == said


def test_a_synthetic_series_names_the_series_it_was_made_of():
    with outbox_node() as node:
        node.ledger.record_received(received(1))
        job = accept(node.ledger)
        derived = derived_set(job)
        node.outbox.put(derived, ["pacs"], job)
        made = derived.instances[0].series_instance_uid
        assert ShortNames(node.database).series(made) == "1.2.1.1"
