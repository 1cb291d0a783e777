"""Tables: what is copied is never broken, a pipe gets one line a row, filters name values."""

from __future__ import annotations

import pytest
import typer

from rebrain_node.cli.terminal import aligned_table, choose, detail_words, tabbed_table

UID = "1.2.826.0.1.3680043.8.498.10705862052038074151899158460012431923"
SENTENCE = "the gap between two slices is 10 mm, at most 6 mm is bridged by the network"


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_uid_and_an_id_are_never_broken_however_narrow_the_terminal(width):
    rows = [["ceecf6594945", UID, "refused", SENTENCE]]
    table = aligned_table("Series", ("id", "series", "state", "reason"), rows, width)
    assert sum(UID in line for line in table.splitlines()) == 1
    assert sum("ceecf6594945" in line for line in table.splitlines()) == 1


def test_sentences_are_wrapped_between_words_to_the_width_of_the_terminal():
    rows = [["ceecf6594945", "refused", SENTENCE]]
    table = aligned_table("Series", ("id", "state", "reason"), rows, 60)
    assert max(map(len, table.splitlines())) <= 60
    assert "".join(SENTENCE.split()) in "".join(table.replace("ceecf6594945  refused", "").split())


def test_an_empty_column_is_left_out_on_a_terminal_and_kept_in_a_pipe():
    rows = [["1", "-", ""], ["2", "", "-"]]
    assert "reason" not in aligned_table("Rows", ("id", "reason", "limit"), rows, 80)
    assert tabbed_table("Rows", ("id", "reason", "limit"), rows).splitlines() == [
        "# Rows", "id\treason\tlimit", "1\t-\t", "2\t\t-",
    ]  # fmt: skip


def test_a_table_without_rows_says_so():
    assert aligned_table("Series", ("id",), [], 80) == "Series: none\n"


def test_a_value_that_a_filter_does_not_know_is_answered_with_the_nearest_and_all():
    with pytest.raises(typer.BadParameter, match=r"did you mean published\? There are: refused, p"):
        choose("publishd", ["refused", "published"], "state of a series")
    with pytest.raises(typer.BadParameter, match=r"state of a series\. There are: refused"):
        choose("xyz", ["refused"], "state of a series")
    assert choose("refused", ["refused"], "state of a series") == "refused"


def test_details_are_words_of_one_line_with_long_values_cut():
    details = {
        "set": 1, "kinds": {"measured": 33, "retrieved": 2}, "sha256": "ab" * 32,
        "slices": [[0.0] * 8] * 161, "warnings": {}, "limit": None, "reason": "word " * 40,
    }  # fmt: skip
    words = detail_words(details)
    assert words.startswith(
        "set 1, kinds (measured 33, retrieved 2), sha256 abababababababab, slices [161 values]"
    )
    assert "warnings" not in words
    assert len(words) < 200
