"""A series that is refused after its selection makes way, in one transaction with its refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import Judgement
from rebrain_node.errors import SupersededError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support.store_cases import complete_all, fast_folder, received

STUDY, FIRST, SECOND, LATE = "1.2.1", "1.2.1.1", "1.2.1.2", "1.2.1.3"
METAL = Finding(code="METAL", sentence="90 mm3 of metal", value=90.0, limit=25.0)
WOULD_DO = Finding(code="NOT-PREFERRED", sentence="would do", value="thickness")
SHARP = Finding(code="KERNEL", sentence="a sharp kernel")


@pytest.fixture
def folder():
    with fast_folder() as folder:
        yield folder


def judged(folder: Path, *, second: Finding) -> tuple[Database, Ledger]:
    """A study of two series of which the first is selected."""
    database = Database.open(f"sqlite:///{folder}/node.sqlite").__enter__()
    ledger = Ledger(database)
    for series in (FIRST, SECOND):
        ledger.record_received(received(1, series=series, study=STUDY))
    complete_all(ledger)
    ledger.judge(STUDY, [judgement(FIRST), judgement(SECOND, second)])
    return database, ledger


def judgement(series: str, *findings: Finding, revision: int = 1) -> Judgement:
    refused = any(finding.severity == "refuse" for finding in findings)
    return Judgement(
        series_instance_uid=series,
        revision=revision,
        decision="refused" if refused else "accepted",
        findings=findings,
    )


def refuse(ledger: Ledger, series: str = FIRST) -> bool:
    return ledger.refuse_selected(series, 1, {"codes": ["METAL"]}, (METAL,))


def test_the_study_is_judged_again_also_after_a_restart_and_the_next_series_is_accepted(folder):
    database, ledger = judged(folder, second=WOULD_DO)
    assert refuse(ledger)
    database.__exit__(None, None, None)  # the process ends here
    with Database.open(f"sqlite:///{folder}/node.sqlite") as again:
        ledger = Ledger(again)
        assert ledger.studies_to_judge() == (STUDY,)
        assert ledger.unfit(STUDY) == {FIRST: (METAL,)}
        for _ in range(2):  # judging twice changes nothing
            ledger.judge(STUDY, [judgement(FIRST, METAL), judgement(SECOND)])
        states = {one.series_instance_uid: one.state for one in ledger.series()}
        assert states == {FIRST: "refused", SECOND: "accepted"}
        assert ledger.studies_to_judge() == ()
        accepted = AuditLog(again).events(100, event=Event.SERIES_ACCEPTED)
        assert [row.subject for row in accepted] == [FIRST, SECOND]
        assert AuditLog(again).verify().intact
        assert ledger.counts().conserved


def test_without_another_series_that_would_do_the_study_stays_judged(folder):
    database, ledger = judged(folder, second=SHARP)
    assert not refuse(ledger)
    assert ledger.studies_to_judge() == ()
    assert ledger.series_one(FIRST).findings == (METAL,)
    database.__exit__(None, None, None)


def test_refusing_it_twice_has_the_effect_of_once(folder):
    database, ledger = judged(folder, second=WOULD_DO)
    assert refuse(ledger)
    assert not refuse(ledger)
    with_state = [
        row
        for row in AuditLog(database).events(100, event=Event.SERIES_REFUSED)
        if row.details.get("state") == "refused"
    ]
    assert len(with_state) == 1
    database.__exit__(None, None, None)


def test_a_series_that_was_unfit_counts_as_unfit_until_it_changes(folder):
    database, ledger = judged(folder, second=SHARP)
    refuse(ledger)
    ledger.record_received(received(1, series=LATE, study=STUDY))
    assert ledger.unfit(STUDY) == {FIRST: (METAL,)}
    ledger.record_received(received(2, series=FIRST, study=STUDY))
    assert ledger.unfit(STUDY) == {}
    with pytest.raises(SupersededError):
        refuse(ledger)
    database.__exit__(None, None, None)


def test_a_study_in_reception_again_is_left_to_its_completion(folder):
    database, ledger = judged(folder, second=WOULD_DO)
    ledger.record_received(received(1, series=LATE, study=STUDY))
    assert not refuse(ledger)
    assert ledger.studies_to_judge() == ()
    complete_all(ledger)
    assert ledger.studies_to_judge() == (STUDY,)
    database.__exit__(None, None, None)
