"""`recall`: find the objects that a model has affected, and have them rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, is_terminal, print_json, print_table
from rebrain_node.domain.text import reference, utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rebrain_node.domain.delivery import RecalledSet
    from rebrain_node.settings import Settings
    from rebrain_node.store.recall import Recall


class RejectionTitle(StrEnum):
    """Why objects are rejected: the title of the note (PS3.16 CID 7011)."""

    QUALITY = "quality"
    SAFETY = "safety"


def recall(  # noqa: PLR0913 - options of a command
    bundle: Annotated[
        str | None, typer.Option(help="Digest of the bundle, or at least its first 16 digits.")
    ] = None,
    exemplar: Annotated[
        str | None,
        typer.Option(
            help="Keyed hash of the exemplar slice; its first 32 digits are those of the subject."
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Source series: UID, id, or the beginning of either."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Everything made at this time (UTC) or later.")
    ] = None,
    rejected: Annotated[
        bool,
        typer.Option("--rejected", help="The rejection notes that other systems sent to the node."),
    ] = False,
    issue: Annotated[
        RejectionTitle | None,
        typer.Option(help="Send a rejection note for what was delivered, for this reason."),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="With --issue: why; stands in the note, so name no patient.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="With --issue: do not ask.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find derived objects of a bundle, exemplar, series or time.

    Lists each object with its state at each destination. With --issue, what waits for delivery is
    cancelled, and a rejection note (IHE IOCM) goes through the outbox to every destination that
    holds one of the objects. The column `rejected`
    holds the title of a note by which another system has rejected the object.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.tasks import issue_recall
    from rebrain_node.settings import load_settings

    if issue is not None and not reason:
        raise typer.BadParameter("--issue needs --reason")
    if rejected:
        if issue is not None or (bundle or exemplar or series or since) is not None:
            raise typer.BadParameter("--rejected stands alone")
        _print_rejections(load_settings(config), as_json=as_json)
        return
    with find_state(load_settings(config)) as state:
        source = None if series is None else state.names.series(series)
        recalled = _find(state.recall, bundle, exemplar, source, since)
        if not as_json:
            _print_recalled(recalled)
        notes: dict[int, int] = {}
        cancelled: dict[int, int] = {}
        if issue is not None:
            if recalled and not yes:
                typer.confirm(f"send rejection notes for {len(recalled)} sets?", abort=True)
            issued = issue_recall(state, recalled, issue.value, reason)
            notes, cancelled = issued.notes, issued.cancelled
    if as_json:
        sets = [asdict(each) for each in recalled]
        print_json({"sets": sets, "notes": notes, "cancelled": cancelled})
    elif issue is not None:
        if stopped := sum(cancelled.values()):
            typer.echo(f"{stopped} objects that were waiting for delivery are cancelled")
        sent = sum(count > 0 for count in notes.values())
        typer.echo(
            f"{sent} rejection notes are in the outbox; `rebrain-node outbox list` shows their "
            "delivery"
            if sent
            else "no rejection note was made: no destination has taken one of these objects"
        )


def _print_rejections(settings: Settings, *, as_json: bool) -> None:
    from rebrain_node.app.compose import find_state

    with find_state(settings) as state:
        found = state.recall.rejections()
    if as_json:
        notes = [asdict(one) | {"received_at": one.received_at.isoformat()} for one in found]
        print_json({"rejections": notes})
        return
    rows = [
        (one.sop_instance_uid, f"{one.title} {one.meaning}", utc(one.received_at), name, n)
        for one in found
        for name, n in one.bundles.items()
    ]
    print_table("Rejections", ("note", "title", "received", "bundle", "objects"), rows)


def _find(
    recall: Recall,
    bundle: str | None,
    exemplar: str | None,
    series: str | None,
    since: datetime | None,
) -> tuple[RecalledSet, ...]:
    if sum(each is not None for each in (bundle, exemplar, series, since)) != 1:
        raise typer.BadParameter(
            "give one of --bundle, --exemplar, --series, --since and --rejected"
        )
    if bundle is not None:
        return recall.by_bundle(bundle)
    if exemplar is not None:
        return recall.by_exemplar(exemplar)
    if series is not None:
        return recall.by_series(series)
    return recall.by_time((since or datetime.now(UTC)).replace(tzinfo=UTC))


def _print_recalled(recalled: Sequence[RecalledSet]) -> None:
    """Print each object; for a person, one row for all of a set that stand alike."""
    rows = [
        (
            each.set_id,
            reference(each.source_series_uid),
            each.source_series_uid,
            each.revision,
            one.kind,
            one.sop_instance_uid,
            ", ".join(f"{name} {state}" for name, state in one.destinations.items()),
            one.rejected,
        )
        for each in recalled
        for one in each.objects
    ]
    if is_terminal():
        alike = Counter((*row[:2], *row[3:5], *row[6:]) for row in rows)
        columns = ("set", "id", "revision", "kind", "destinations", "rejected", "objects")
        print_table("Objects", columns, [(*row, count) for row, count in alike.items()])
        typer.echo("every UID: the same command with --json, or into a file")
        return
    every = ("set", "id", "source series", "revision", "kind", "instance", "destinations",
             "rejected")  # fmt: skip
    print_table("Objects", every, rows)
