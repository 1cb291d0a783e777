"""What a destination or a source holds: C-FIND and C-GET as SCU (PS3.4 annex C, study root)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from rebrain_node.domain.completeness import SourceAnswer
from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.instance.comparison import changed_elements, differing_identity
from rebrain_node.network.association import associated, describe, is_open
from rebrain_node.settings import DestinationSettings, DicomRemote

#: Study Root Query/Retrieve Information Model (PS3.4 C.6.2)
FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")
_ECHO: Final = UID("1.2.840.10008.1.1")
_PENDING: Final = (0xFF00, 0xFF01)
#: answers to one C-FIND; the largest series have some thousand instances
MAXIMUM_ANSWERS: Final = 20_000
#: time for all answers to one C-FIND, in times of timeout_s
LONGEST_FIND: Final = 10
_COUNT: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, kw_only=True)
class QueryTemplate:
    """The keys of one question (PS3.4 C.6.2)."""

    purpose: str
    level: str
    matching: tuple[str, ...]  #: keywords of the keys with a value
    returned: tuple[str, ...]  #: keywords of the keys without one


#: every question that the node asks by C-FIND
QUERIES: Final[Mapping[str, QueryTemplate]] = {
    "identity": QueryTemplate(
        purpose="whether the study was corrected there before a result is sent",
        level="STUDY",
        matching=("StudyInstanceUID",),
        returned=("PatientID", "AccessionNumber"),
    ),
    "count": QueryTemplate(
        purpose="how many instances the source of a series has",
        level="SERIES",
        matching=("StudyInstanceUID", "SeriesInstanceUID"),
        returned=("NumberOfSeriesRelatedInstances",),
    ),
    "instances": QueryTemplate(
        purpose="which instances of a series a destination or a source has",
        level="IMAGE",
        matching=("StudyInstanceUID", "SeriesInstanceUID"),
        returned=("SOPInstanceUID",),
    ),
    "studies with reports": QueryTemplate(
        purpose="`audit verify --against-sr`: which studies hold reports",
        level="STUDY",
        matching=("ModalitiesInStudy",),
        returned=("StudyInstanceUID",),
    ),
    "reports": QueryTemplate(
        purpose="`audit verify --against-sr`: which series of a study are reports of this node",
        level="SERIES",
        matching=("StudyInstanceUID", "Modality"),
        returned=("SeriesInstanceUID", "SeriesDescription"),
    ),
}


def question_of(name: str, *values: str) -> Dataset:
    """Make the identifier of a question of `QUERIES` with a value for each matching key."""
    template, question = QUERIES[name], Dataset()
    question.QueryRetrieveLevel = template.level
    for keyword, value in zip(template.matching, values, strict=True):
        setattr(question, keyword, value)
    for keyword in template.returned:
        setattr(question, keyword, None)
    return question


@dataclass(frozen=True)
class DestinationQuery:
    """Questions to one destination."""

    destination: DestinationSettings
    calling_ae_title: str

    def identity_conflict(self, instance: DerivedInstance) -> str | None:
        """Say in what the study there is another patient's or examination's than the instance.

        None where patient and accession number agree, or the destination does not hold the study.

        Raises
        ------
        QueryNotOfferedError
            The destination does not accept C-FIND.
        DeliveryError
            There is no association, or the query failed.
        """
        ours = _meta(instance)
        question = question_of("identity", ours.StudyInstanceUID)
        # that of the instance too: an association without an accepted context is aborted
        contexts = [build_context(FIND), build_context(instance.sop_class_uid)]
        with _asking(self.destination, self.calling_ae_title, contexts) as association:
            studies = _find(self.destination, association, question)
        differing = {name for study in studies for name in differing_identity(study, ours)}
        if not differing:
            return None
        return (
            f"{describe(self.destination)} holds the study with another "
            f"{' and '.join(sorted(differing))} than the result has: the study was "
            "corrected there after it was sent to the node; send the corrected CT again, or "
            "correct the study there and run `rebrain-node outbox retry`"
        )

    def held(
        self, instances: Sequence[DerivedInstance], read_back: Sequence[str]
    ) -> tuple[HeldObject, ...]:
        """Say of each instance whether the destination holds it, and whether unchanged.

        Parameters
        ----------
        instances : sequence of DerivedInstance
            Of one study.
        read_back : sequence of str
            SOP Instance UIDs of those that are retrieved and compared, where C-GET is offered.

        Raises
        ------
        QueryNotOfferedError
            The destination does not accept C-FIND.
        DeliveryError
            There is no association, or a query failed.
        """
        stored: dict[str, Dataset] = {}

        def keep(event: Event) -> int:
            stored[str(cast(C_STORE, event.request).AffectedSOPInstanceUID)] = event.dataset
            return 0x0000

        classes = dict.fromkeys(
            (one.sop_class_uid, str(_meta(one).file_meta.TransferSyntaxUID)) for one in instances
        )
        contexts = [build_context(FIND), build_context(GET)]
        contexts += [build_context(*pair) for pair in classes]
        with _asking(
            self.destination,
            self.calling_ae_title,
            contexts,
            roles=[build_role(UID(sop_class), scp_role=True) for sop_class, _ in classes],
            handlers=[(evt.EVT_C_STORE, keep)],
        ) as association:
            known = self._instances_of(association, instances)
            for one in instances:
                if one.sop_instance_uid in read_back and one.sop_instance_uid in known:
                    self._get(association, one)
        return tuple(
            HeldObject(
                sop_instance_uid=one.sop_instance_uid,
                held=one.sop_instance_uid in known,
                changed=(
                    changed_elements(one.content, stored[one.sop_instance_uid])
                    if one.sop_instance_uid in stored
                    else None
                ),
            )
            for one in instances
        )

    def _instances_of(
        self, association: Association, instances: Sequence[DerivedInstance]
    ) -> frozenset[str]:
        """SOP Instance UIDs that the destination holds of the series of some instances."""
        study = str(_meta(instances[0]).StudyInstanceUID)
        found: set[str] = set()
        for series in dict.fromkeys(one.series_instance_uid for one in instances):
            found |= _listed(self.destination, association, study, series)
        return frozenset(found)

    def _get(self, association: Association, instance: DerivedInstance) -> None:
        """Retrieve one instance; what does not come stays unknown."""
        if not _accepts(association, GET):
            return
        question = Dataset()
        question.QueryRetrieveLevel = "IMAGE"
        question.StudyInstanceUID = _meta(instance).StudyInstanceUID
        question.SeriesInstanceUID = instance.series_instance_uid
        question.SOPInstanceUID = instance.sop_instance_uid
        for _ in association.send_c_get(question, GET):
            pass


@dataclass(frozen=True)
class DicomSource:
    """A PACS or scanner that is asked what it has sent (port ``Source``)."""

    remote: DicomRemote
    calling_ae_title: str

    def ask(self, study: str, held: Mapping[str, int]) -> Mapping[str, SourceAnswer]:
        """Ask for Number of Series Related Instances, and for a list where that is not enough.

        Raises
        ------
        QueryNotOfferedError
            The source does not accept C-FIND.
        DeliveryError
            There is no association, the query failed, or no answer in time.

        References
        ----------
        PS3.4 C.3.4, table C.6-3: (0020,1209) is optional at the level of a series.
        """
        # Verification too: an association without an accepted context is aborted
        contexts = [build_context(FIND), build_context(_ECHO)]
        with _asking(self.remote, self.calling_ae_title, contexts) as association:
            return {
                series: self._ask(association, (study, series), count)
                for series, count in held.items()
            }

    def _ask(self, association: Association, uids: tuple[str, str], held: int) -> SourceAnswer:
        found = _find(self.remote, association, question_of("count", *uids))
        stated = stated_count(found, uids[1])
        if stated and stated != held:
            return SourceAnswer(count=stated)
        listed = _listed(self.remote, association, *uids)
        return counted(stated, listed)


def stated_count(found: Sequence[Dataset], series: str) -> int | None:
    """Read how many instances the answers to a query say that a series has; None: they do not.

    Answers about other series, and numbers that are none or contradict each other, say nothing.
    """
    numbers = set[int]()
    for answer in found:
        about = str(answer.get("SeriesInstanceUID") or series).strip(" \0")
        text = str(answer.get("NumberOfSeriesRelatedInstances", "")).strip(" \0")
        if about == series and _COUNT.fullmatch(text):
            numbers.add(int(text))
    return numbers.pop() if len(numbers) == 1 else None


def counted(stated: int | None, listed: frozenset[str]) -> SourceAnswer:
    """Join a number and a list; the greater counts, since servers cut long lists."""
    return SourceAnswer(count=max(stated or 0, len(listed)), uids=listed)


@contextmanager
def _asking(
    remote: DicomRemote,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[EventHandlerType] = (),
) -> Iterator[Association]:
    with associated(
        remote, calling_ae_title, contexts, roles=roles, handlers=handlers
    ) as association:
        if not _accepts(association, FIND):
            raise QueryNotOfferedError(f"{describe(remote)} does not accept C-FIND (study root)")
        yield association


def _listed(
    remote: DicomRemote, association: Association, study: str, series: str
) -> frozenset[str]:
    """SOP Instance UIDs of the instances of one series that the remote lists."""
    found = _find(remote, association, question_of("instances", study, series))
    uids = (str(answer.get("SOPInstanceUID") or "") for answer in found)
    return frozenset(uid for uid in uids if uid)


def _find(remote: DicomRemote, association: Association, question: Dataset) -> list[Dataset]:
    """Ask once; all answers.

    Raises
    ------
    DeliveryError
        The query failed, or its answers do not end: then the association is aborted.
    """
    if not is_open(association):
        raise DeliveryError(f"{describe(remote)} ended the association before the query")
    answers: list[Dataset] = []
    end_s = time.monotonic() + LONGEST_FIND * remote.timeout_s
    for status, answer in association.send_c_find(question, FIND):
        code = status.get("Status")
        if code in _PENDING and answer is not None:
            answers.append(answer)
            if len(answers) > MAXIMUM_ANSWERS or time.monotonic() > end_s:
                association.abort()
                raise DeliveryError(
                    f"{describe(remote)} did not end its answers to C-FIND: {len(answers)} so far, "
                    f"at most {MAXIMUM_ANSWERS} are taken within {LONGEST_FIND} times timeout_s"
                )
        elif code != 0x0000:
            said = "nothing in time" if code is None else f"0x{code:04X}"
            raise DeliveryError(f"{describe(remote)} answered {said} to C-FIND")
    return answers


def _accepts(association: Association, sop_class: UID) -> bool:
    return any(c.abstract_syntax == sop_class for c in association.accepted_contexts)


def _meta(instance: DerivedInstance) -> Dataset:
    return dcmread(BytesIO(instance.content), stop_before_pixels=True)
