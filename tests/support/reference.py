"""Writes the generated tables of the documents: ``python -m tests.support.reference``.

A page names the tables that it holds by a pair of comments::

    <!-- generated: NAME -->
    ...
    <!-- end -->

What stands between them comes from the code by the function that `TABLES` holds under that name;
``tests/repository/test_pages.py`` fails while a page is out of date. Prose outside the comments is
written by hand and says why; the tables say what. docs/conformance.md is generated whole.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydicom.uid import UID
from pynetdicom.pdu_primitives import A_ASSOCIATE

from rebrain_node import errors
from rebrain_node.app.conformance import conformance_statement
from rebrain_node.cli import program
from rebrain_node.domain import audit_message_rules, marks, notice
from rebrain_node.domain.audit import Event
from rebrain_node.domain.codes import CODES, Topic
from rebrain_node.domain.statuses import STATUSES
from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.limits_file import shipped_limits
from rebrain_node.network.acceptor import BACKLOG
from rebrain_node.network.admission import REJECTIONS
from rebrain_node.network.handshake import HANDSHAKE_REASONS
from rebrain_node.network.pdu_stream import StreamLimits
from rebrain_node.reception.inbox import MAXIMUM_PENDING_BYTES
from rebrain_node.report.statement import as_markdown
from rebrain_node.settings import Receiver, Settings
from rebrain_node.steps import gate
from rebrain_node.steps.gate.rules import rules_of
from rebrain_node.steps.select import PREFERENCES
from rebrain_node.steps.write import codes, source
from tests.faults import commitments, destinations, statuses, tls_matrix
from tests.field.cases_vendors import RIGHT
from tests.support.scanners import SCANNERS, SOURCES, ScannerSeries
from trainer.cli import program as trainer_program

ROOT = Path(__file__).resolve().parents[2]
#: generated as a whole
STATEMENT = ROOT / "docs/conformance.md"
_BLOCK = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of one table: a row of headings, then the rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def gate_rules(topic: ModuleType) -> str:
    """Table of the rules of the gate that one module defines."""
    rows = [[f"`{r.code}`", r.requirement, r.holds_for, r.why] for r in rules_of(topic)]
    return table(["rule", "what must hold", "for", "why"], rows)


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and click command of every command of `rebrain-node` that is not hidden."""
    group = typer.main.get_command(program) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield prefix + name, command


def _command_table(program: typer.Typer) -> str:
    """Return every command of a program with its help text."""
    group = typer.main.get_command(program)
    rows = [(f"`{name}`", _one_line(command.help)) for name, command in commands(group)]
    return table(("command", "what it does"), rows)


#: options of many commands, which the text above the tables explains
_SHARED_OPTIONS = ("config", "as_json")


def _option_table() -> str:
    """Return arguments and options of every command, with default and help text."""
    rows = [
        (f"`{name}`", f"`{_spelling(option)}`", _default(option), _one_line(option.help))
        for name, command in commands()
        for option in command.params
        if option.name not in _SHARED_OPTIONS
    ]
    return table(("command", "argument or option", "default", "meaning"), rows)


def _spelling(option: Any) -> str:
    name = option.opts[0]
    return name.upper() if option.param_type_name == "argument" else name


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.default in (None, False) else f"`{option.default}`"


def error_classes() -> list[type[errors.RebrainError]]:
    """Return every error of `rebrain_node.errors`, in the order of the file."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [value for value in classes if issubclass(value, errors.RebrainError)]


def _error_table() -> str:
    """Return every error with its docstring: meaning, and the paragraph "Outcome"."""
    rows = []
    for error in error_classes():
        meaning, _, outcome = (inspect.getdoc(error) or "").partition("\n\nOutcome: ")
        rows.append((f"`{error.__name__}`", _one_line(meaning), _one_line(outcome)))
    return table(("error", "meaning", "outcome"), rows)


def settings(
    model: type[BaseModel] = Settings, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield dotted name and field of every setting, tables of the file left out."""
    for name, field in model.model_fields.items():
        parts = list(_models(field.annotation))
        if field.description is not None or not parts:
            yield prefix + name, field
        for part in parts:
            yield from settings(part, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation: itself, or the items of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _setting_table() -> str:
    """Return every setting with its default and its description."""
    rows = [
        (f"`{name}`", _default_setting(field.default), _one_line(field.description))
        for name, field in settings()
    ]
    return table(("setting", "default", "what it does"), rows)


def _default_setting(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in default) + "]`"
    return "`none`" if default is None else f"`{default}`"


def _preference_table() -> str:
    """Return what ranks the series that would do, the deciding preference first."""
    return table(("preference", "how"), PREFERENCES.items())


def _policy_table() -> str:
    """Return every code that a site's policy covers, with what the node ships."""
    limits = shipped_limits()
    rows = [
        (f"`{code}`", limits.severity(code), each.meaning)
        for code, each in CODES.items()
        if each.policy == "site"
    ]
    return table(("code", "ships as", "meaning"), rows)


def _vendor_table() -> str:
    """Return what each vendor's scanner writes into a series, what is right for it, and sources."""
    rows = []
    for scanner in SCANNERS:
        for name, series in scanner.series.items():
            kernel = series.attributes.get("ConvolutionKernel", (False, ""))[0]
            rows.append(
                (
                    scanner.vendor, name, _image_type(series), f"`{kernel}`" if kernel else "",
                    f"`{RIGHT[scanner.vendor][name]}`", _series_source(series),
                )
            )  # fmt: skip
    head = ("vendor", "series", "Image Type", "kernel", "right answer", "seen in")
    return table(head, rows)


def _image_type(series: ScannerSeries) -> str:
    value = series.attributes["ImageType"][0]
    return f"`{value}`" if value else ""


def _series_source(series: ScannerSeries) -> str:
    return _one_line(SOURCES[series.attributes["ImageType"][1]])


def _left_out_table() -> str:
    """Return what no public source settles, by vendor."""
    rows = [
        (scanner.vendor, what, why)
        for scanner in SCANNERS
        for what, why in scanner.left_out.items()
    ]
    return table(("vendor", "not written", "why"), rows)


def _refusals(topic: str) -> str:
    """Return the codes of findings of one topic; a site's policy with what the node ships."""
    limits = shipped_limits()
    rows = [
        (
            f"`{code}`", each.meaning, each.limit, each.remedy,
            f"site ({limits.severity(code)})" if each.policy == "site" else each.policy,
            each.found_by,
        )
        for code, each in CODES.items()
        if each.topic == topic
    ]  # fmt: skip
    head = ("code", "what it means", "value, limit", "what helps", "policy", "found by")
    return table(head, rows)


def _audit_events() -> str:
    """Return every event of the audit log."""
    rows = [(f"`{e}`", e.when, e.subject, e.details) for e in Event]
    return table(("event", "when", "subject", "details"), rows)


def _audit_messages() -> str:
    """Return the DICOM audit message of each event, or why there is none."""
    received = "DICOM Instances Transferred, one message for a study and a sender"
    rows = []
    for event in Event:
        rule = audit_message_rules.RULES.get(event)
        made = received if event == Event.INSTANCE_RECEIVED else rule.message if rule else "none"
        rows.append((f"`{event}`", made, audit_message_rules.SILENT.get(event, "")))
    return table(("event", "message", "why none"), rows)


def _notice_events() -> str:
    """Return the events of which notices tell."""
    return table(("event", "when"), [(f"`{e}`", e.when) for e in Event if e in notice.SENTENCES])


def _rejections() -> str:
    """Return what a peer sees whose association is rejected, by the reason in the audit log."""
    rows = []
    for reason, ((result, origin, diagnostic), remedy) in REJECTIONS.items():
        answer = A_ASSOCIATE()
        answer.result, answer.result_source, answer.diagnostic = result, origin, diagnostic
        rows.append((f"`{reason}`", f"{answer.result_str}: {answer.reason_str}", remedy))
    return table(("reason in the audit", "a refused peer sees (A-ASSOCIATE-RJ)", "remedy"), rows)


def _transfer_syntaxes() -> str:
    """Return the transfer syntaxes that an association may agree on."""
    rows = [(UID(uid).name, uid) for uid in decodable_transfer_syntaxes()]
    return table(("transfer syntax", "UID"), rows)


def _statuses() -> str:
    """Return every reason for which an instance is not acknowledged."""
    rows = [(f"{s.status:04X}", f"`{r}`", s.meaning, s.remedy) for r, s in STATUSES.items()]
    return table(("status", "reason", "meaning", "the sender should"), rows)


def _receiver_limits() -> str:
    """Return the limits of the transport with their defaults."""
    node, stream = Receiver(), StreamLimits()
    rows = (
        ("associations at once", node.maximum_associations, "maximum_associations"),
        ("connections that have not associated", node.maximum_unassociated, "maximum_unassociated"),
        (
            "the same from one address",
            node.maximum_unassociated_per_address,
            "maximum_unassociated_per_address",
        ),
        (
            "time for the whole association request",
            f"{node.association_timeout_s:g} s",
            "association_timeout_s",
        ),
        ("time for one whole PDU once associated", f"{node.pdu_timeout_s:g} s", "pdu_timeout_s"),
        ("silence of an association", f"{stream.idle_s:g} s", ""),
        ("A-ASSOCIATE PDU", f"{stream.associate_bytes >> 10} KiB", ""),
        ("P-DATA PDU (offered and enforced)", f"{stream.pdu_bytes >> 10} KiB", ""),
        ("command set", f"{stream.command_bytes >> 10} KiB", ""),
        ("one message", f"{node.maximum_message_bytes >> 20} MiB", "maximum_message_bytes"),
        ("unfinished messages of all associations", f"{MAXIMUM_PENDING_BYTES >> 20} MiB", ""),
        ("report of a storage commitment", f"{stream.report_bytes >> 20} MiB", ""),
        ("messages that wait while one is served", "1; then the sender is held up by TCP", ""),
        ("connections that wait to be accepted", BACKLOG, ""),
    )
    return table(
        ("limit", "default", "setting"),
        [(what, str(value), f"`receiver.{key}`" if key else "") for what, value, key in rows],
    )


def _private_block() -> str:
    """Return the elements of the private block, with the objects that contain them."""
    containers = (
        ("every object", marks.OBJECT_ELEMENTS),
        ("each MR slice", marks.SLICE_ELEMENTS),
        ("each frame of an Enhanced MR", (marks.SLICE_PROVENANCE,)),
    )
    rows = [
        (f"{e.offset:02X}", e.vr, ", ".join(filter(None, (place, e.condition))), e.name)
        for place, elements in containers
        for e in elements
    ]
    return table(("element", "VR", "in", "what"), rows)


def _copied_attributes() -> str:
    """Return what is copied from the source into every object."""
    rows = [
        (", ".join(source.REQUIRED_IDENTITY), "the source's; empty where absent"),
        (", ".join(source.OPTIONAL_IDENTITY), "the source's, where present"),
        (", ".join(source.IDENTITY_SEQUENCES), "the source's, where present"),
    ]
    return table(("attribute", "value"), rows)


def private_codes() -> dict[str, str]:
    """Return the meaning of every code of our own scheme, by its value."""
    triples = [
        marks.DERIVATION_CODE,
        *vars(codes).values(),
        *codes.KINDS.values(),
        *codes.VERDICTS.values(),
    ]
    ours = [t for t in triples if isinstance(t, tuple) and t[1:2] == (marks.CODING_SCHEME,)]
    return {value: meaning for value, _, meaning in ours}


def _code_table() -> str:
    """Return the codes of our own scheme."""
    return table(("code", "meaning"), [(f"`{c}`", m) for c, m in private_codes().items()])


def _delivery_statuses() -> str:
    """Return every status of a C-STORE response with its class, state and end."""
    rows = [
        (f"{case.status:04X}", case.meaning, case.outcome, f"`{case.state}`", f"`{case.final}`")
        for case in statuses.CASES
    ]
    head = ("status", "meaning", "class", "object then", "once the destination takes all")
    return table(head, rows)


def _destination_cases() -> str:
    """Return destinations that misbehave, and what becomes of two studies that wait for each."""
    rows = [
        (
            str(number), case.fault, _counted(case.states), case.series, case.other,
            "none" if case.operator == "nothing" else f"`{case.operator}`", case.repaired,
        )
        for number, case in enumerate(destinations.CASES, 1)
    ]  # fmt: skip
    head = (
        "", "the destination", "objects of the first study", "its series", "series of the next",
        "command after the repair", "series of the first then",
    )  # fmt: skip
    return table(head, rows)


def _commitment_cases() -> str:
    """Return every answer to a request for storage commitment, and what follows."""
    rows = [
        (
            case.answer,
            " and ".join(case.over) or "none",
            ", ".join(f"{each:04X}" for each in case.replies) or "nothing",
            case.states,
            case.series,
            str(case.requests),
            commitments.CONFIRMED,
        )
        for case in commitments.CASES
    ]
    head = (
        "answer", "association", "the node answers", "three objects", "series then",
        "requests in all", "series in the end",
    )  # fmt: skip
    return table(head, rows)


def _handshake_reasons() -> str:
    """Return why a handshake is refused."""
    rows = [(f"`{reason}`", words) for reason, words in HANDSHAKE_REASONS.items()]
    return table(("reason", "what it means and what helps"), rows)


def _tls_cases() -> str:
    """Return every connection of the matrix."""
    rows = [
        (str(number), case.direction, case.peer, case.what, case.expected)
        for number, case in enumerate(tls_matrix.CASES, 1)
    ]
    return table(("", "direction", "peer", "what", "the node records or says"), rows)


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


#: what each table of the documents holds, by the name in its comment
TABLES: Mapping[str, Callable[[], str]] = {
    **{f"gate-{t.__name__.rpartition('.')[2]}": partial(gate_rules, t) for t in gate.TOPICS},
    "commands": partial(_command_table, program),
    "trainer-commands": partial(_command_table, trainer_program),
    "command-options": _option_table,
    "errors": _error_table,
    "settings": _setting_table,
    "handshake-reasons": _handshake_reasons,
    "tls-matrix": _tls_cases,
    "selection-preferences": _preference_table,
    "selection-policies": _policy_table,
    "selection-vendors": _vendor_table,
    "selection-left-out": _left_out_table,
    "audit-events": _audit_events,
    "audit-messages": _audit_messages,
    "notice-events": _notice_events,
    "receiving-rejections": _rejections,
    "receiving-transfer-syntaxes": _transfer_syntaxes,
    "receiving-statuses": _statuses,
    "receiving-limits": _receiver_limits,
    "delivery-statuses": _delivery_statuses,
    "delivery-destinations": _destination_cases,
    "delivery-commitments": _commitment_cases,
    "objects-private": _private_block,
    "objects-copied": _copied_attributes,
    "objects-codes": _code_table,
    **{f"refusals-{topic}": partial(_refusals, topic) for topic in get_args(Topic)},
}


def rendered(text: str) -> str:
    """Return the text of a page with each of its tables as the code has it now."""
    return _BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def pages() -> tuple[Path, ...]:
    """Return the pages that hold a generated table."""
    return tuple(
        page
        for page in sorted(ROOT.glob("docs/**/*.md"))
        if _BLOCK.search(page.read_text(encoding="utf-8"))
    )


def statement() -> str:
    """Return the conformance statement of the default configuration."""
    return as_markdown(conformance_statement(Settings()))


if __name__ == "__main__":
    STATEMENT.write_text(statement(), encoding="utf-8")
    for each in pages():
        each.write_text(rendered(each.read_text(encoding="utf-8")), encoding="utf-8")
