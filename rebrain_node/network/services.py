"""What this node asks of others: SOP classes, roles and transfer syntaxes, as the settings say.

One list for three readers: `doctor` proposes it to each destination, an administrator enters it at
the PACS, and the conformance statement names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.presentation import build_context
from pynetdicom.status import GENERAL_STATUS, STORAGE_SERVICE_CLASS_STATUS

from rebrain_node.domain.delivery import outcome_of
from rebrain_node.domain.marks import SERIES_ORDER
from rebrain_node.domain.notification import notification_outcome
from rebrain_node.errors import DeliveryError
from rebrain_node.network.admission import VERIFICATION
from rebrain_node.network.association import associated, describe
from rebrain_node.network.commitment import PUSH_MODEL
from rebrain_node.network.query import FIND, GET
from rebrain_node.settings import DestinationSettings, DicomRemote, Settings
from rebrain_node.steps.gate.marking import CLASSES, ENHANCED_MR

#: what each kind of object is, in words
KINDS: Final = {
    "MR": "synthetic MR series",
    "PM": "uncertainty map",
    "SEG": "voxels not to be trusted",
    "SC": "colour preview",
    "PR": "visible mark",
    "SR": "provenance report",
    "KOS": "list of the set, and rejection notes",
}


@dataclass(frozen=True, kw_only=True)
class SentObject:
    """One kind of object that the node sends (C-STORE as SCU, Explicit VR Little Endian)."""

    kind: str  #: MR, PM, SEG, SC, PR, SR or KOS
    sop_class: UID
    purpose: str

    @property
    def transfer_syntax(self) -> UID:
        """The one in which every object is written and sent."""
        return ExplicitVRLittleEndian


def sent_objects(settings: Settings) -> tuple[SentObject, ...]:
    """List the kinds of objects that the settings write, in the order of sending."""
    return tuple(
        SentObject(kind=kind, sop_class=_sop_class(settings, kind), purpose=KINDS[kind])
        for kind in SERIES_ORDER
        if kind in _written(settings)
    )


def _written(settings: Settings) -> Iterator[str]:
    yield "MR"
    yield from settings.objects.companions
    if settings.marks.visible == "presentation-state":
        yield "PR"


def _sop_class(settings: Settings, kind: str) -> UID:
    enhanced = kind == "MR" and settings.objects.mr == "enhanced"
    return UID(ENHANCED_MR if enhanced else CLASSES[kind][0])


def asked_services(destination: DestinationSettings) -> tuple[UID, ...]:
    """SOP classes beside Verification and Storage that the node asks of a destination.

    Before each sending it is asked for the study, so that C-FIND is always proposed.
    """
    asked = [FIND, GET]
    return (*asked, PUSH_MODEL) if destination.confirmation == "commitment" else tuple(asked)


@dataclass(frozen=True, kw_only=True)
class ServiceAnswer:
    """What one association with a remote system gave."""

    seconds: float  #: from connecting to the answer to C-ECHO
    accepted: frozenset[UID]  #: SOP classes of the accepted presentation contexts


def propose(remote: DicomRemote, calling_ae_title: str, classes: Sequence[UID]) -> ServiceAnswer:
    """Propose Verification and some SOP classes, and send C-ECHO; nothing else is sent.

    Raises
    ------
    DeliveryError
        No association, or no success of C-ECHO; says why and what to do.
    """
    begun = time.monotonic()
    contexts = [build_context(VERIFICATION)]
    contexts += [build_context(each, ExplicitVRLittleEndian) for each in classes]
    with associated(remote, calling_ae_title, contexts) as association:
        accepted = frozenset(UID(str(c.abstract_syntax)) for c in association.accepted_contexts)
        if VERIFICATION not in accepted:
            raise DeliveryError(
                f"{describe(remote)} does not take C-ECHO; allow Verification there"
            )
        status = getattr(association.send_c_echo(), "Status", None)
    if status != 0x0000:
        answer = "nothing in time" if status is None else f"0x{status:04X}"
        raise DeliveryError(f"{describe(remote)} answered {answer} to C-ECHO")
    return ServiceAnswer(seconds=time.monotonic() - begun, accepted=accepted)


#: how serious it is that a destination does not accept what is proposed
Lack = Literal["fail", "warn"]


def lacks(
    settings: Settings, destination: DestinationSettings, accepted: frozenset[UID]
) -> Iterator[tuple[Lack, str]]:
    """Say what a destination does not accept, how serious that is, and what to do."""
    for each in sent_objects(settings):
        if each.sop_class not in accepted:
            yield _class_lack(each, strict=destination.companions == "strict")
    if FIND not in accepted:
        kept = "" if destination.confirmation == "none" else ", and nothing is ever confirmed"
        text = (
            "it takes no queries (C-FIND, study root): that a study was corrected there is not "
            f"noticed{kept}; allow queries of AE title {settings.receiver.ae_title} there"
        )
        yield "warn", text
    elif GET not in accepted and destination.confirmation != "none":
        yield "warn", "it does not offer C-GET: no sample is read back and compared; allow it there"
    if destination.confirmation == "commitment" and PUSH_MODEL not in accepted:
        text = (
            "it does not offer storage commitment, and is asked by query instead; allow it there, "
            'or set confirmation = "query"'
        )
        yield "warn", text


def _class_lack(each: SentObject, *, strict: bool) -> tuple[Lack, str]:
    name = f"it does not take {each.sop_class.name} ({each.sop_class}, {each.purpose})"
    if each.kind == "MR":
        return "fail", f"{name}: no result can be sent; allow it there"
    if strict:
        text = f"{name}, and its companions are strict: no result can be sent; allow it there"
        return "fail", f'{text}, or set companions = "lenient"'
    return "warn", f"{name}, which is left out; allow it there"


@dataclass(frozen=True, kw_only=True)
class StatusRange:
    """Statuses of a response that are treated alike."""

    first: int
    last: int
    meaning: str  #: PS3.4 and PS3.7 annex C
    outcome: str  #: what the node makes of it

    @property
    def codes(self) -> str:
        """In hexadecimal, a range with a hyphen."""
        one = f"{self.first:04X}"
        return one if self.first == self.last else f"{one}-{self.last:04X}"


def c_store_statuses() -> tuple[StatusRange, ...]:
    """Say what the node makes of each status of a C-STORE response that the standard lists."""
    return _ranges(STORAGE_SERVICE_CLASS_STATUS, outcome_of)


def n_create_statuses() -> tuple[StatusRange, ...]:
    """Say what the node makes of each status of the response to a notification (N-CREATE)."""
    return _ranges(GENERAL_STATUS, notification_outcome)


def _ranges(
    statuses: Mapping[int, tuple[str, str]], outcome: Callable[[int], str]
) -> tuple[StatusRange, ...]:
    """Join neighbouring statuses of one meaning and one outcome."""
    found: list[StatusRange] = []
    for code in sorted(statuses):
        category, words = statuses[code]
        if category == "Cancel":
            continue
        meaning, made = words or category, outcome(code)
        last = found[-1] if found else None
        if last is not None and (last.last + 1, last.meaning, last.outcome) == (
            code,
            meaning,
            made,
        ):
            found[-1] = replace(last, last=code)
        else:
            found.append(StatusRange(first=code, last=code, meaning=meaning, outcome=made))
    return tuple(found)
