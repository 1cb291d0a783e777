"""Tables of chapters 1 to 8, from the settings and the tables of the code (PS3.2 N.1 to N.8)."""

from __future__ import annotations

from collections.abc import Sequence

from rebrain_node.app.conformance.facts import StatementFacts
from rebrain_node.domain.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rebrain_node.domain.statuses import STATUSES
from rebrain_node.domain.workitem import workitem_outcome
from rebrain_node.network.admission import KEPT, PROCESSED, REJECTIONS, VERIFICATION
from rebrain_node.network.commitment import PUSH_MODEL
from rebrain_node.network.dicomweb import LATER
from rebrain_node.network.notification import AVAILABILITY
from rebrain_node.network.pdu_stream import StreamLimits
from rebrain_node.network.query import FIND, GET, QUERIES
from rebrain_node.network.services import StatusRange, c_store_statuses, n_create_statuses
from rebrain_node.report.statement import TableBlock
from rebrain_node.settings import DicomRemote, Receiver

#: HTTP statuses of table 7-9
_HTTP = (200, 202, 204, 400, 401, 403, 404, 408, 409, 410, 425, 429, 500, 501, 503)
_CONTEXTS = ("SOP class", "UID", "transfer syntaxes", "role")
_NATIVE = "Implicit VR Little Endian, Explicit VR Little Endian"

Rows = Sequence[tuple[str, ...]]


def tables(facts: StatementFacts) -> dict[str, tuple[TableBlock, ...]]:
    """Return each table by the name at which the template has it."""
    every = {
        **_overview(facts), **_configuration(facts), **_association(facts), **_contexts(facts),
        **_statuses(), "profiles": _profiles(facts),
    }  # fmt: skip
    return {name: (table,) for name, table in every.items()}


def _table(caption: str, head: tuple[str, ...], rows: Rows) -> TableBlock:
    return TableBlock(caption=f"Table {caption}", head=head, rows=tuple(rows))


def _overview(facts: StatementFacts) -> dict[str, TableBlock]:
    settings, setup = facts.settings, facts.setup
    storage = [(uid.name, str(uid), "N", "Y", "Y", "N") for uid in setup.processed]
    storage += [(one.sop_class.name, str(one.sop_class), "Y", "N", "Y", "Y") for one in setup.sent]
    commitment = any(one.confirmation == "commitment" for one in settings.destinations)
    dimse = [
        ("1.2.1 Verification", VERIFICATION, "Y", True),
        ("1.2.2 Storage", "table 1-1", "Y", bool(settings.destinations)),
        ("1.2.2 Storage Commitment Push Model", PUSH_MODEL, "N", commitment),
        (
            "1.2.3 Instance Availability Notification",
            AVAILABILITY,
            "N",
            bool(settings.notifications),
        ),
        (
            "1.2.4 Study Root Query/Retrieve - FIND",
            FIND,
            "N",
            bool(settings.destinations or settings.sources),
        ),
        ("1.2.4 Study Root Query/Retrieve - GET", GET, "N", bool(settings.destinations)),
    ]
    stow = bool(settings.dicomweb_destinations)
    web = [
        ("1.3.2 Studies: store (STOW-RS)", "POST /studies", stow),
        (
            "1.3.2 Studies: search (QIDO-RS)",
            "studies, series, instances",
            stow or bool(settings.dicomweb_sources),
        ),
        ("1.3.2 Studies: retrieve (WADO-RS)", "instance", stow),
        (
            "1.3.3 Worklist (UPS-RS)",
            "search, retrieve, change state, update",
            bool(settings.workflow_managers),
        ),
    ]
    questions = [
        (q.level, ", ".join(q.matching), ", ".join(q.returned), q.purpose) for q in QUERIES.values()
    ]
    return {
        "storage": _table(
            "1-1 Storage SOP classes. Read: results are made from it",
            ("SOP class", "UID", "created", "read", "received", "sent"),
            storage,
        ),
        "dimse": _table(
            "1-2 DIMSE services. In use: as SCU, by this configuration",
            ("service", "SOP class UID", "SCU", "SCP", "in use"),
            [(name, str(uid), "Y", scp, "NY"[used]) for name, uid, scp, used in dimse],
        ),
        "web": _table(
            "1-3 DICOM Web Services. In use: by this configuration",
            ("service", "transactions", "user agent", "origin server", "in use"),
            [(name, what, "Y", "N", "NY"[used]) for name, what, used in web],
        ),
        "queries": _table(
            "5-1 Questions by C-FIND",
            ("level", "keys with a value", "keys without one", "purpose"),
            questions,
        ),
    }


def _configuration(facts: StatementFacts) -> dict[str, TableBlock]:
    settings, receiver = facts.settings, facts.settings.receiver
    own = [
        ("AE title", receiver.ae_title, "receiver.ae_title"),
        ("address", receiver.address, "receiver.address"),
        ("port of plain DICOM", str(receiver.port or "not open"), "receiver.port"),
        ("port of DICOM over TLS", _tls_port(receiver), "receiver.tls.port"),
        (
            "objects",
            ", ".join(one.kind for one in facts.setup.sent),
            "objects.companions, marks.visible",
        ),
        ("MR", settings.objects.mr, "objects.mr"),
        ("pixels of the uncertainty map", settings.objects.map_precision, "objects.map_precision"),
    ]
    senders = [
        (
            one.ae_title,
            ", ".join(one.addresses),
            "one of those named" if one.certificates else "any that is trusted, or none",
            one.query or "nobody",
        )
        for one in receiver.peers
    ]
    dicom = (*settings.destinations, *settings.sources, *settings.notifications)
    web = (
        *settings.dicomweb_destinations, *settings.dicomweb_sources, *settings.workflow_managers,
    )  # fmt: skip
    remotes = [(one.name, one.role, _where(one), f"{one.timeout_s:g} s") for one in dicom]
    remotes += [(one.name, one.role, one.url, f"{one.timeout_s:g} s") for one in web]
    nobody = [("nobody may associate", "-", "-", "-")]
    none = [("none", "-", "-", "-")]
    return {
        "own": _table("6-1 The Application Entity", ("parameter", "value", "setting"), own),
        "senders": _table(
            "6-2 Senders",
            (
                "calling AE title",
                "networks",
                "certificate",
                "who is asked how many instances there are",
            ),
            senders or nobody,
        ),
        "remotes": _table(
            "6-3 Systems that the node calls",
            ("name", "role", "where", "limit of each step"),
            remotes or none,
        ),
    }


def _tls_port(receiver: Receiver) -> str:
    return "not open" if receiver.tls is None else str(receiver.tls.port)


def _where(remote: DicomRemote) -> str:
    encrypted = "" if remote.tls is None else " (TLS)"
    return f"{remote.ae_title}@{remote.host}:{remote.port}{encrypted}"


def _association(facts: StatementFacts) -> dict[str, TableBlock]:
    receiver, stream = facts.settings.receiver, StreamLimits()
    rows = [
        ("Application Context Name", "1.2.840.10008.3.1.1.1"),
        ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
        ("longest P-DATA PDU that is received, bytes", str(stream.pdu_bytes)),
        ("longest message that is received, bytes", str(receiver.maximum_message_bytes)),
        ("simultaneous associations, acceptor", str(receiver.maximum_associations)),
        ("simultaneous associations, requestor", "a few for each remote system and worker process"),
        ("asynchronous operations", "not negotiated: one operation at a time"),
        ("SOP class extended negotiation", "not negotiated"),
        ("time for the association request, s", f"{receiver.association_timeout_s:g}"),
        ("time for one PDU once associated, s", f"{receiver.pdu_timeout_s:g}"),
        ("silence after which an association is aborted, s", f"{stream.idle_s:g}"),
    ]
    return {"association": _table("7-1 Association parameters", ("parameter", "value"), rows)}


def _contexts(facts: StatementFacts) -> dict[str, TableBlock]:
    setup = facts.setup
    native = ", ".join(uid.name for uid in setup.received_syntaxes if not uid.is_compressed)
    accepted = [(VERIFICATION.name, str(VERIFICATION), native, "SCP")]
    accepted += [(uid.name, str(uid), "table 7-4", "SCP") for uid in (*PROCESSED, *KEPT)]
    accepted += [(PUSH_MODEL.name, str(PUSH_MODEL), _NATIVE, "SCU, SCP (N-EVENT-REPORT)")]
    proposed = [
        (one.sop_class.name, str(one.sop_class), one.transfer_syntax.name, "SCU")
        for one in setup.sent
    ]
    roles = {GET: "SCU; SCP of the SOP classes that are retrieved"}
    proposed += [
        (uid.name, str(uid), _NATIVE, roles.get(uid, "SCU"))
        for uid in (VERIFICATION, FIND, GET, PUSH_MODEL, AVAILABILITY)
    ]
    rejections = [
        (reason, ", ".join(map(str, codes)), remedy)
        for reason, (codes, remedy) in REJECTIONS.items()
    ]
    return {
        "proposed": _table("7-2 Proposed presentation contexts", _CONTEXTS, proposed),
        "accepted": _table("7-3 Accepted presentation contexts", _CONTEXTS, accepted),
        "syntaxes": _table(
            "7-4 Transfer syntaxes of Storage: those whose decoder passes its test at the start",
            ("transfer syntax", "UID"),
            [(uid.name, str(uid)) for uid in setup.received_syntaxes],
        ),
        "rejections": _table(
            "7-5 Rejections (A-ASSOCIATE-RJ)",
            ("reason in the audit log", "result, source, reason", "remedy"),
            rejections,
        ),
    }


def _statuses() -> dict[str, TableBlock]:
    stored = [("0000", "", "the instance is durable", "")]
    stored += [(f"{s.status:04X}", name, s.meaning, s.remedy) for name, s in STATUSES.items()]
    http = [(str(code), _stow(code), workitem_outcome(code)) for code in _HTTP]
    return {
        "stored": _table(
            "7-6 C-STORE responses of the node (SCP)",
            ("status", "reason", "meaning", "the sender should"),
            stored,
        ),
        "sent_statuses": _outcomes("7-7 C-STORE responses to the node (SCU)", c_store_statuses()),
        "notified": _outcomes("7-8 N-CREATE responses to notifications", n_create_statuses()),
        "http": _table("7-9 HTTP statuses", ("status", "STOW-RS", "UPS-RS"), http),
    }


def _stow(code: int) -> str:
    if code >= 500 or code in LATER:
        return "everything is sent again"
    return "what the answer says of each instance counts"


def _outcomes(caption: str, ranges: Sequence[StatusRange]) -> TableBlock:
    rows = [(one.codes, one.meaning, one.outcome) for one in ranges]
    return _table(caption, ("status", "meaning", "the node takes it as"), rows)


def _profiles(facts: StatementFacts) -> TableBlock:
    settings = facts.settings
    remotes = (*settings.destinations, *settings.sources, *settings.notifications)
    called = any(one.tls is not None for one in remotes)
    profile = (
        "Y: BCP 195, RFC 8996 and RFC 9325 (PS3.15 B.12): TLS 1.2 and 1.3, ECDHE with AES-GCM or "
        "ChaCha20-Poly1305, mutual authentication, certificate revocation lists; in use: "
    )
    rows = [
        ("8.4.1 Secure Use", "N"),
        (
            "8.4.2 Secure Transport Connection, DIMSE, as acceptor",
            f"{profile}{'NY'[settings.receiver.tls is not None]}",
        ),
        (
            "8.4.2 Secure Transport Connection, DIMSE, as requestor",
            f"{profile}{'NY'[called]}; the host name of the certificate is compared",
        ),
        (
            "8.4.2 Secure Transport Connection, DICOM Web Services",
            "TLS as client; the certificate of the server is verified",
        ),
        ("8.4.3 Media Storage Security", "N"),
        ("8.4.4 Attribute Confidentiality", "N"),
        ("8.4.5 Digital Signature", "N"),
    ]
    return _table("8-1 Profiles of PS3.15", ("profile", "supported"), rows)
