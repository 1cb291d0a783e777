"""What a destination holds: C-FIND and C-GET as SCU (PS3.4 annex C, study root)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

from rebrain_node.domain.delivery import HeldObject
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.instance.comparison import changed_elements, differing_identity
from rebrain_node.network.association import associated, describe
from rebrain_node.settings import DestinationSettings

#: Study Root Query/Retrieve Information Model (PS3.4 C.6.2)
_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
_GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")
_PENDING: Final = (0xFF00, 0xFF01)


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
        question = Dataset()
        question.QueryRetrieveLevel = "STUDY"
        question.StudyInstanceUID = ours.StudyInstanceUID
        question.PatientID = question.AccessionNumber = ""
        # that of the instance too: an association without an accepted context is aborted
        contexts = [build_context(_FIND), build_context(instance.sop_class_uid)]
        with self._associated(contexts) as association:
            studies = self._find(association, question)
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
        contexts = [build_context(_FIND), build_context(_GET)]
        contexts += [build_context(*pair) for pair in classes]
        with self._associated(
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

    @contextmanager
    def _associated(
        self,
        contexts: Sequence[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[EventHandlerType] = (),
    ) -> Iterator[Association]:
        with associated(
            self.destination, self.calling_ae_title, contexts, roles=roles, handlers=handlers
        ) as association:
            if not _accepts(association, _FIND):
                raise QueryNotOfferedError(
                    f"{describe(self.destination)} does not accept C-FIND (study root)"
                )
            yield association

    def _instances_of(
        self, association: Association, instances: Sequence[DerivedInstance]
    ) -> frozenset[str]:
        """SOP Instance UIDs that the destination holds of the series of some instances."""
        study = str(_meta(instances[0]).StudyInstanceUID)
        found: set[str] = set()
        for series in dict.fromkeys(one.series_instance_uid for one in instances):
            question = Dataset()
            question.QueryRetrieveLevel = "IMAGE"
            question.StudyInstanceUID, question.SeriesInstanceUID = study, series
            question.SOPInstanceUID = ""
            found |= {str(a.SOPInstanceUID) for a in self._find(association, question)}
        return frozenset(found)

    def _find(self, association: Association, question: Dataset) -> list[Dataset]:
        answers: list[Dataset] = []
        for status, answer in association.send_c_find(question, _FIND):
            code = status.get("Status")
            if code in _PENDING and answer is not None:
                answers.append(answer)
            elif code != 0x0000:
                said = "nothing in time" if code is None else f"0x{code:04X}"
                raise DeliveryError(f"{describe(self.destination)} answered {said} to C-FIND")
        return answers

    def _get(self, association: Association, instance: DerivedInstance) -> None:
        """Retrieve one instance; what does not come stays unknown."""
        if not _accepts(association, _GET):
            return
        question = Dataset()
        question.QueryRetrieveLevel = "IMAGE"
        question.StudyInstanceUID = _meta(instance).StudyInstanceUID
        question.SeriesInstanceUID = instance.series_instance_uid
        question.SOPInstanceUID = instance.sop_instance_uid
        for _ in association.send_c_get(question, _GET):
            pass


def _accepts(association: Association, sop_class: UID) -> bool:
    return any(c.abstract_syntax == sop_class for c in association.accepted_contexts)


def _meta(instance: DerivedInstance) -> Dataset:
    return dcmread(BytesIO(instance.content), stop_before_pixels=True)
