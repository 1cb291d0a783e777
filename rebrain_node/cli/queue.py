"""`queue`: the state of each series, and disputed series."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from rebrain_node.cli.terminal import AsJson, Config, choose, print_json, print_table
from rebrain_node.domain.text import reference, utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rebrain_node.app.compose import State
    from rebrain_node.domain.acceptance import Verdict
    from rebrain_node.domain.audit import AuditEvent
    from rebrain_node.domain.completeness import Inquiry
    from rebrain_node.domain.delivery import Delivery
    from rebrain_node.domain.ledger import DisputeDecision, Rival, SeriesRecord
    from rebrain_node.domain.workitem import Workitem

queue = typer.Typer(
    help="Show the state of each series, and decide about single ones.", no_args_is_help=True
)


@queue.command("list")
def list_(
    config: Config = None,
    state: Annotated[str | None, typer.Option(help="Only series in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the series and the state of each."""
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.ledger import SeriesState
    from rebrain_node.settings import load_settings

    if state is not None:
        choose(state, get_args(SeriesState), "state of a series")
    with find_state(load_settings(config)) as node:
        records = [r for r in node.ledger.series() if state is None or r.state == state]
    if as_json:
        print_json({"series": [_series(record) for record in records]})
        return
    columns = (
        "id", "series", "state", "changed", "instances", "completeness", "revision", "reason",
    )  # fmt: skip
    rows = [
        (
            reference(r.series_instance_uid), r.series_instance_uid, r.state_text,
            utc(r.changed_at), r.instance_count, r.completeness, r.revision, _reason(r),
        )
        for r in records
    ]  # fmt: skip
    print_table("Series", columns, rows, piped=("series", "completeness", "revision"))


Series = Annotated[
    str,
    typer.Argument(
        help="Series Instance UID, or the id that tables and logs show; its beginning will do."
    ),
]
Reason = Annotated[
    str, typer.Option(help="Why; written to the audit log: do not name the patient.")
]


@queue.command("show")
def show(series: Series, config: Config = None, as_json: AsJson = False) -> None:
    """Show one series and its result.

    State, findings, why it was accepted or refused, what its source answered, how its CT was
    shifted to the level of brain tissue of the bundle, waiting deliveries, and workitems of its
    study. The block Result names bundle and signer, slices by kind, the exemplars and subjects
    behind them, uncertainty, the slices not to be trusted, the MR series, who has got it when, and
    the verdicts of readers.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.audit import Event
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        uid = state.names.series(series)
        record, inquiry = state.ledger.series_one(uid), state.inquiries.of_series(uid)
        waiting = [d for d in state.deliveries.pending() if d.source_series_uid == uid]
        levels = state.audit.events(1, subject=uid, event=Event.TISSUE_LEVEL)
        result = state.results.of_series(uid)
        assert record is not None  # noqa: S101 - `names` found it; for the type checker
        workitems = state.workitems.of(record.study_instance_uid)
    level = _tissue_level(levels, record)
    answer: dict[str, Any] = (
        _series(record)
        | _inquiry(inquiry)
        | {"tissue_level": level, "deliveries_waiting": [delivery_values(d) for d in waiting]}
        | {"workitems": [_workitem(one) for one in workitems]}
    )
    if as_json:
        print_json(answer | {"result": None if result is None else result.to_json()})
        return
    answer["changed_at"] = utc(record.changed_at)
    rows = [
        (name.replace("_", " "), value)
        for name, value in answer.items()
        if not isinstance(value, list | tuple | dict) and value is not None
    ]
    rows += [
        (f"tissue level: {name.replace('_', ' ')}", value) for name, value in (level or {}).items()
    ]
    rows += [(f.code, f.sentence) for f in record.findings]
    rows += [("explanation", line) for line in record.explanation]
    rows += [(f"waits for {d.destination}", d.reason) for d in waiting]
    rows += [
        (
            f"workitem of {one.manager}",
            f"{one.workitem_uid} {one.state}: {one.reason or 'no fault'}",
        )
        for one in workitems
    ]
    print_table("Series", ("field", "value"), rows)
    if result is not None:
        typer.echo("")
        print_table("Result", ("field", "value"), result.rows())


def _workitem(one: Workitem) -> dict[str, object]:
    return {
        "manager": one.manager,
        "workitem": one.workitem_uid,
        "state": one.state,
        "claimed_at": one.claimed_at and one.claimed_at.isoformat(),
        "status": one.status,
        "attempts": one.attempts,
        "reason": one.reason,
        "since": one.since.isoformat(),
    }


@queue.command("retry")
def retry(series: Series, reason: Reason, config: Config = None, as_json: AsJson = False) -> None:
    """Judge a failed or cancelled series again.

    Of a series that was refused because its source did not confirm it (SOURCE-HAS-MORE,
    NOT-VERIFIED) the source is asked again before.

    If it is accepted, it is synthesised. A result that exists is sent again with `outbox retry`.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        uid = state.names.series(series)
        record = state.ledger.retry(uid, operator=_login_name(), reason=reason)
    _print_decision(record, as_json=as_json)


@queue.command("cancel")
def cancel(series: Series, reason: Reason, config: Config = None, as_json: AsJson = False) -> None:
    """Refuse a series before it is synthesised.

    It must be complete or accepted. `queue retry` takes that back.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        uid = state.names.series(series)
        record = state.ledger.cancel(uid, operator=_login_name(), reason=reason)
    _print_decision(record, as_json=as_json)


@queue.command("verdict")
def verdict(
    series: Series,
    word: Annotated[str, typer.Argument(metavar="VERDICT", help="`accept` or `reject`.")],
    reason: Reason,
    operator: Annotated[
        str | None,
        typer.Option(help="Who has looked, for the audit log; default: the login name."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Record what a person thinks of a result.

    `audit acceptance` counts it: the newest verdict of each person; a result is accepted if nobody
    rejects it. Nothing else changes: stop a delivery with `outbox cancel`, take a result back with
    `recall`.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.acceptance import VERDICTS
    from rebrain_node.settings import load_settings

    choose(word, VERDICTS, "verdict")
    by = (operator or _login_name()).strip()
    with find_state(load_settings(config)) as state:
        uid = state.names.series(series)
        set_id = state.results.judge(uid, cast("Verdict", word), reason=reason, operator=by)
    if as_json:
        print_json({"series_instance_uid": uid, "set": set_id, "verdict": word, "operator": by})
    else:
        typer.echo(f"{by}: {word} for the result of series {reference(uid)} (set {set_id})")


def _print_decision(record: SeriesRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(_series(record))
    else:
        uid = record.series_instance_uid
        typer.echo(f"series {reference(uid)} ({uid}) is {record.state}")


@queue.command("dispute")
def dispute(  # noqa: PLR0913 - one option each
    uid: Annotated[
        str,
        typer.Argument(
            help="Series Instance UID, or Study Instance UID for all its series; an id or a "
            "beginning will do."
        ),
    ],
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="Go on with the instances that came first.")
    ] = False,
    take_second: Annotated[
        bool, typer.Option("--take-second", help="Go on with those that came last.")
    ] = False,
    refuse: Annotated[bool, typer.Option("--refuse", help="Make nothing of the series.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Why, for the audit log; do not name the patient.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="Who decides, for the audit log; default: the login name.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Decide about a disputed series.

    Its instances arrived again with other content. Without a decision it shows what is in
    quarantine and which elements differ. The decision and its reason go to the audit log; the
    series goes on or is refused at once. What was synthesised already is never changed.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    choices: dict[DisputeDecision, bool] = {
        "keep-first": keep_first, "take-second": take_second, "refuse": refuse,
    }  # fmt: skip
    chosen = [decision for decision, given in choices.items() if given]
    if len(chosen) > 1:
        raise typer.BadParameter("give one of --keep-first, --take-second and --refuse")
    if chosen and not (reason or "").strip():
        raise typer.BadParameter("give --reason: the audit log keeps why it was decided")
    with find_state(load_settings(config)) as state:
        uid = state.names.study(uid) or state.names.series(uid)
        if not chosen:
            _print_rivals(state, uid, as_json=as_json)
            return
        by = (operator or _login_name()).strip()
        records = state.ledger.decide(uid, chosen[0], operator=by, reason=str(reason).strip())
    if as_json:
        print_json({"decision": chosen[0], "series": [_series(record) for record in records]})
        return
    columns = ("id", "series", "state", "instances", "revision")
    rows = [
        (reference(r.series_instance_uid), r.series_instance_uid, r.state, r.instance_count,
         r.revision)
        for r in records
    ]  # fmt: skip
    print_table(f"Decided: {chosen[0]}", columns, rows)


def _print_rivals(state: State, uid: str, *, as_json: bool) -> None:
    """Print what is in quarantine of a series or study; the elements of one instance a series."""
    from rebrain_node.errors import StateError
    from rebrain_node.reception.inbox import InboxFolder

    rivals = state.ledger.rivals(uid)
    if not rivals:
        raise StateError(
            f"{uid} is no disputed series and no study with one; `rebrain-node queue list` "
            "lists all series with their state"
        )
    inbox = InboxFolder(state.inbox, state.ledger)
    by_series: dict[str, list[Rival]] = {}
    for rival in rivals:
        by_series.setdefault(rival.series_instance_uid, []).append(rival)
    answer = [
        {
            "series_instance_uid": series,
            "instances": len({each.sop_instance_uid for each in held}),
            "reasons": sorted({each.reason for each in held}),
            "calling_ae_titles": sorted({each.calling_ae_title for each in held}),
            "since": held[0].received_at.isoformat(),
            "decision": held[-1].decision,
            "different_elements": list(inbox.different_elements(held[-1])),
        }
        for series, held in by_series.items()
    ]
    if as_json:
        print_json({"disputes": answer})
        return
    for each in answer:
        print_table("Dispute", ("field", "value"), list(each.items()))


def _login_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _tissue_level(levels: Sequence[AuditEvent], record: SeriesRecord) -> dict[str, object] | None:
    """Return how the CT of the present revision was shifted; None before or without that."""
    for event in levels:
        details = dict(event.details)
        if details.pop("revision", None) == record.revision:
            return details
    return None


def _reason(record: SeriesRecord) -> str:
    return record.findings[0].sentence if record.findings else ""


def _series(record: SeriesRecord) -> dict[str, object]:
    return (
        {"id": reference(record.series_instance_uid)}
        | asdict(record)
        | {"changed_at": record.changed_at.isoformat()}
    )


def _inquiry(inquiry: Inquiry | None) -> dict[str, object]:
    """Say what the source has answered so far; nothing where it was not asked."""
    if inquiry is None or inquiry.source is None:
        return {"source": None}
    return {
        "source": inquiry.source,
        "source_questions": inquiry.rounds,
        "source_instances": inquiry.count,
        "source_failure": inquiry.failure,
    }


def delivery_values(delivery: Delivery) -> dict[str, object]:
    """Values of a delivery for JSON."""
    return asdict(delivery) | {
        "outstanding": delivery.outstanding,
        "since": delivery.since.isoformat(),
    }
