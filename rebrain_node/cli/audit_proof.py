"""`audit verify`, `key`: whether the audit log is as it was written, and by whose key."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebrain_node.cli.audit import audit
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table, progress

if TYPE_CHECKING:
    from rebrain_node.app.anchors import ReportComparison
    from rebrain_node.domain.audit import ChainVerdict
    from rebrain_node.settings import Settings
    from rebrain_node.store.audit_check import AuditCheck

Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        help="File of a public key: the site's copy of the node's key. Only the keys given count; "
        "without one, the file audit.pub of the node.",
    ),
]


@audit.command("verify")
def verify(
    config: Config = None,
    against_sr: Annotated[
        str | None,
        typer.Option(
            "--against-sr",
            help="Folder with structured reports exported from the PACS, or name of a destination "
            "from which they are retrieved: their anchors are compared with the log.",
        ),
    ] = None,
    key: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Verify that the audit log is as it was written.

    Checks hash chain, signed checkpoints, triggers, and ledger and deliveries against it. With
    --against-sr, also whether the log still has the rows that the reports of the node were
    signed over. Exit code 1 if anything is not as it was written, and what it is.
    """
    from rebrain_node.app.compose import audit_check, find_state
    from rebrain_node.app.messages import record_broken
    from rebrain_node.app.verification import note_verification
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with find_state(settings) as state, progress() as bar:
        task = bar.add_task("verify", total=None)
        check = audit_check(state, key or ())
        verdict = check.verify(lambda done, total: bar.update(task, completed=done, total=total))
        if not verdict.intact:
            record_broken(state, verdict)
        note_verification(state.folder, verdict)
        reports = None if against_sr is None else _compare(settings, check, against_sr)
    answer = _answer(verdict)
    if reports is not None:
        answer["reports"] = {
            "compared": reports.compared,
            "unsigned": reports.unsigned,
            "of_other_nodes": reports.others,
            "before_the_log": reports.before,
        }
        answer["differences"] += [asdict(one) for one in reports.differences]
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if not verdict.intact or (reports is not None and not reports.agree):
        raise typer.Exit(1)


def _compare(settings: Settings, check: AuditCheck, where: str) -> ReportComparison:
    """Compare the reports in a folder, or those of a destination, with the log."""
    from rebrain_node.app.anchors import compare_reports, fetch_reports

    if Path(where).is_dir():
        return compare_reports(check, Path(where))
    with TemporaryDirectory(prefix="rebrain-reports-") as folder:
        fetch_reports(settings, where, Path(folder))
        return compare_reports(check, Path(folder))


def _answer(verdict: ChainVerdict) -> dict[str, Any]:
    return {
        "intact": verdict.intact,
        "events": verdict.rows,
        "first": verdict.first,
        "head": verdict.head,
        "checkpoints": verdict.checkpoints,
        "unsigned": verdict.unsigned,
        "broken_sequence": verdict.broken_sequence,
        "reason": verdict.reason,
        "differences": [asdict(one) for one in verdict.differences],
    }


def _print(answer: dict[str, Any]) -> None:
    labels = {
        "intact": "as it was written",
        "events": "events",
        "first": "number of the first event",
        "head": "hash of the last event",
        "checkpoints": "signed checkpoints",
        "unsigned": "events after the last checkpoint",
        "broken_sequence": "first altered event",
        "reason": "reason",
    }
    rows = [(text, answer[name]) for name, text in labels.items()]
    if "reports" in answer:
        rows += [(f"reports: {n.replace('_', ' ')}", v) for n, v in answer["reports"].items()]
    print_table("Audit log", ("field", "value"), rows)
    if answer["differences"]:
        listed = [(one["kind"], one["subject"], one["sentence"]) for one in answer["differences"]]
        print_table("What contradicts it", ("kind", "of", "sentence"), listed)


@audit.command("key")
def key(
    out: Annotated[
        Path | None, typer.Option(help="File to write (PEM); without it, standard output.")
    ] = None,
    config: Config = None,
) -> None:
    """Print the public key by which the audit log is verified.

    Keep a copy where the administrator of the node cannot change it: `audit verify --key FILE`
    then shows a log that was written again with another key.
    """
    from rebrain_node.errors import StateError
    from rebrain_node.model.keys import public_key_text
    from rebrain_node.settings import load_settings

    text = public_key_text(load_settings(config).storage.folder)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="ascii") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise StateError(f"{out} exists and is not overwritten; name another file") from error
    typer.echo(str(out))
