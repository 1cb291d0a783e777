"""`doctor`: check the installation and print what is entered at the PACS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from pydicom.uid import UID

    from rebrain_node.app.doctor import DoctorCheck
    from rebrain_node.app.pacs_entries import PacsSetup

_WORDS: Final = {"ok": "ok", "warn": "warn", "fail": "FAILED"}


def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Check the installation and print the entry for the PACS.

    On this machine: settings, limits, disk and how long it lasts, database, clock, audit log, keys,
    inbox, receiver, decoders, bundle and its signer, engine. Then each destination, source,
    receiver of notifications, workflow manager, collector of audit messages, webhook and mail
    server is asked, at most 10 s at each step: nothing is sent but C-ECHO, searches, requests for
    associations and the login at a mail server; storage commitment is negotiated and not asked
    for. Exit code 1 if a check fails; a warning is no failure.
    """
    from rebrain_node.app.doctor import checks_of_the_node
    from rebrain_node.app.doctor_remotes import checks_of_remotes
    from rebrain_node.app.pacs_entries import pacs_setup
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    checks = [*checks_of_the_node(settings), *checks_of_remotes(settings)]
    setup = pacs_setup(settings)
    if as_json:
        print_json(_answer(checks, setup))
    else:
        rows = [(each.what, _WORDS[each.state], each.found) for each in checks]
        print_table("Checks", ("check", "result", "details"), rows)
        _print_setup(setup)
    if not all(each.fit for each in checks):
        raise typer.Exit(1)


def _answer(checks: Sequence[DoctorCheck], setup: PacsSetup) -> dict[str, Any]:
    return {
        "checks": [
            {"what": one.what, "fit": one.fit, "state": one.state, "found": one.found}
            for one in checks
        ],
        "enter_at_the_pacs": setup.entry,
        "pacs_sends": {
            "sop_classes": _named(setup.processed),
            "further_sop_classes": setup.kept,
            "transfer_syntaxes": _named(setup.received_syntaxes),
        },
        "pacs_takes": {
            "sop_classes": _named([one.sop_class for one in setup.sent]),
            "transfer_syntaxes": _named({one.transfer_syntax: None for one in setup.sent}),
            "services": {name: _named(uids) for name, uids in setup.asked.items()},
        },
    }


def _named(uids: Any) -> dict[str, str]:
    return {str(uid): uid.name for uid in uids}


def _print_setup(setup: PacsSetup) -> None:
    print_table("Enter at the PACS", ("field", "value"), list(setup.entry.items()))
    columns = ("what", "name", "UID")
    sends = [*_rows("SOP class", setup.processed), *_rows("syntax", setup.received_syntaxes)]
    print_table("The PACS sends to this node, with one of the syntaxes", columns, sends)
    typer.echo(f"{setup.kept} further storage SOP classes are taken and kept, not processed")
    takes = [(one.kind, one.sop_class.name, str(one.sop_class)) for one in setup.sent]
    syntaxes = list(dict.fromkeys(one.transfer_syntax for one in setup.sent))
    takes += _rows("syntax", syntaxes)
    print_table("The PACS takes from this node", columns, takes)
    asked = [row for name, uids in setup.asked.items() for row in _rows(name, uids)]
    if asked:
        print_table("And answers it", ("destination", "name", "UID"), asked)


def _rows(what: str, uids: Sequence[UID]) -> list[tuple[str, str, str]]:
    return [(what, uid.name, str(uid)) for uid in uids]
