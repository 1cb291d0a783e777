"""UPS-RS as performer (PS3.18 section 11): search, claim, update and end workitems of a manager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from rebrain_node.domain.notification import AvailableObject
from rebrain_node.domain.workitem import FINAL_STATES, ScheduledWorkitem, StudyOutcome, Workitem
from rebrain_node.errors import DeliveryError
from rebrain_node.network.dicomweb import WebPeer
from rebrain_node.network.query import MAXIMUM_ANSWERS
from rebrain_node.settings import WorkflowManagerSettings

#: workitems asked for in one request
_PAGE: Final = 100
_UID: Final = re.compile(r"[0-9.]{1,64}")
_FIELDS: Final = (
    "ProcedureStepState", "ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence",
    "InputInformationSequence", "ReferencedRequestSequence",
)  # fmt: skip
#: longest Reason For Cancellation, characters (VR LT)
_LONGEST_REASON: Final = 10_240


class WorkflowManager(WebPeer):
    """One workflow manager (port ``WorkitemManager``)."""

    def __init__(
        self, manager: WorkflowManagerSettings, ae_title: str, retrieve_from: Mapping[str, str]
    ) -> None:
        super().__init__(manager)
        self._manager, self._ae_title = manager, ae_title
        self._retrieve_from = retrieve_from  #: AE title or URL by name of a destination

    def scheduled(self) -> tuple[ScheduledWorkitem, ...]:
        """Search for workitems of the code of the settings that wait for a performer.

        Raises
        ------
        DeliveryError
            The manager cannot be reached, or does not answer with workitems.
        """
        known: set[str] = set()
        found: list[ScheduledWorkitem] = []
        while len(known) < MAXIMUM_ANSWERS:
            page = {uid: one for uid, one in self._page(len(known)) if uid not in known}
            if not page:  # the last page, or the first again
                break
            known |= page.keys()
            found += [one for one in page.values() if one is not None]
        return tuple(found)

    def check(self) -> int:
        """Ask for one page of scheduled workitems; how many on it the node could perform.

        Raises
        ------
        DeliveryError
            The manager cannot be reached, or does not answer with workitems.
        """
        return sum(one is not None for _, one in self._page(0))

    def retrieve(self, workitem: Workitem) -> tuple[int, Dataset]:
        """Ask for a workitem; HTTP status, and its attributes where it is there.

        Raises
        ------
        DeliveryError
            The manager cannot be reached, or answers something else.
        """
        response = self.request("GET", self._path(workitem))
        if not response.is_success:
            return response.status, Dataset()
        with self._reading():
            return response.status, response.datasets()[0]

    def claim(self, workitem: Workitem) -> int:
        """Ask that this node performs a workitem; HTTP status.

        Raises
        ------
        DeliveryError
            The manager cannot be reached.
        """
        return self._change_state(workitem, "IN PROGRESS")

    def update(self, workitem: Workitem, end: StudyOutcome, scheduled: Dataset) -> int:
        """Write what became of the study into a workitem that this node holds; HTTP status.

        Parameters
        ----------
        scheduled : Dataset
            The workitem as the manager holds it.

        Raises
        ------
        DeliveryError
            The manager cannot be reached.
        """
        changes = self._performed(workitem, end, scheduled)
        form, uid = self._manager.transaction, workitem.transaction_uid
        if form == "body":
            changes.TransactionUID = uid
        query: dict[str, str] | None = None if form == "body" else {form: uid}
        return self.request("POST", self._path(workitem), changes, query).status

    def finish(self, workitem: Workitem, end: StudyOutcome) -> int:
        """Complete or cancel a workitem that this node holds; HTTP status.

        Raises
        ------
        DeliveryError
            The manager cannot be reached.
        """
        return self._change_state(workitem, FINAL_STATES[end.state])

    def _page(self, offset: int) -> list[tuple[str, ScheduledWorkitem | None]]:
        """SOP Instance UIDs from an offset on, each with the workitem where it can be chosen.

        Raises
        ------
        DeliveryError
            The manager cannot be reached, or does not answer with workitems.
        """
        query = {
            "ProcedureStepState": "SCHEDULED",
            "ScheduledWorkitemCodeSequence.CodeValue": self._manager.workitem_code,
            "includefield": ",".join(_FIELDS), "limit": str(_PAGE), "offset": str(offset),
        }  # fmt: skip
        if self._manager.station is not None:
            query["ScheduledStationNameCodeSequence.CodeValue"] = self._manager.station
        response = self.request("GET", "/workitems", query=query)
        if response.status == 204:
            return []
        if not response.is_success:
            raise DeliveryError(
                f"{self._where} answered HTTP {response.status} to a search for workitems; "
                "check url and token_file"
            )
        with self._reading():
            return [
                (str(one.get("SOPInstanceUID") or ""), self._scheduled(one))
                for one in response.datasets()
            ]

    def _scheduled(self, found: Dataset) -> ScheduledWorkitem | None:
        """Read one answer of a search; None where it is not surely for this node.

        Servers may ignore a matching key, so that code, station and state are compared again.
        """
        uid, station = str(found.get("SOPInstanceUID") or ""), self._manager.station
        if (
            not _UID.fullmatch(uid)
            or found.get("ProcedureStepState") != "SCHEDULED"
            or not _names(found, "ScheduledWorkitemCodeSequence", self._manager.workitem_code)
            or not (station is None or _names(found, "ScheduledStationNameCodeSequence", station))
        ):
            return None
        for keyword in ("InputInformationSequence", "ReferencedRequestSequence"):
            named = {str(item.get("StudyInstanceUID") or "") for item in found.get(keyword) or ()}
            if studies := named - {""}:
                study = studies.pop()
                if studies:  # the result of one study must not stand for another
                    return None
                return ScheduledWorkitem(workitem_uid=uid, study_instance_uid=study)
        return None

    def _change_state(self, workitem: Workitem, state: str) -> int:
        body = Dataset()
        body.TransactionUID, body.ProcedureStepState = workitem.transaction_uid, state
        path = f"{self._path(workitem)}/state"
        query = None
        if self._manager.transaction == "Transaction-uid":
            query = {"requester": self._ae_title}
        elif self._manager.transaction == "body":
            path = f"{path}/{quote(self._ae_title, safe='')}"  # dcm4chee to 5.35.0 knows no other
        return self.request("PUT", path, body, query).status

    def _performed(self, workitem: Workitem, end: StudyOutcome, scheduled: Dataset) -> Dataset:
        """Build what PS3.4 table CC.2.5-3 asks of a final state."""
        changes, performed, now = Dataset(), Dataset(), _moment(datetime.now(UTC))
        performed.PerformedStationNameCodeSequence = [_code(self._ae_title, "L", self._ae_title)]
        performed.PerformedWorkitemCodeSequence = list(
            scheduled.get("ScheduledWorkitemCodeSequence") or []
        )
        began = workitem.claimed_at or datetime.now(UTC)
        performed.PerformedProcedureStepStartDateTime = _moment(began)
        performed.PerformedProcedureStepEndDateTime = now
        performed.OutputInformationSequence = self._output(workitem.study_instance_uid, end)
        changes.UnifiedProcedureStepPerformedProcedureSequence = [performed]
        if not end.objects:
            progress = Dataset()
            progress.ProcedureStepCancellationDateTime = now
            progress.ReasonForCancellation = " ".join(end.reasons)[:_LONGEST_REASON]
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [
                _code("110513", "DCM", "Discontinued for unspecified reason")
            ]
            changes.ProcedureStepProgressInformationSequence = [progress]
        return changes

    def _output(self, study: str, end: StudyOutcome) -> Items:
        """List the objects by series, with where each series is (PS3.4 table CC.2.5-2c)."""
        items = Items()
        for uid in dict.fromkeys(one.series_instance_uid for _, one in end.objects):
            held = [(name, one) for name, one in end.objects if one.series_instance_uid == uid]
            item = Dataset()
            item.TypeOfInstances, item.StudyInstanceUID = "DICOM", study
            item.SeriesInstanceUID = uid
            item.ReferencedSOPSequence = [_reference(one) for one in {o: o for _, o in held}]
            places = {self._retrieve_from[name] for name, _ in held if name in self._retrieve_from}
            titles = sorted(place for place in places if "://" not in place)
            urls = sorted(place for place in places if "://" in place)
            if titles:
                item.DICOMRetrievalSequence = [_with("RetrieveAETitle", each) for each in titles]
            if urls:
                item.WADORSRetrievalSequence = [
                    _with("RetrieveURL", f"{each}/studies/{study}/series/{uid}") for each in urls
                ]
            items.append(item)
        return items

    def _path(self, workitem: Workitem) -> str:
        return f"/workitems/{workitem.workitem_uid}"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DeliveryError(
                f"{self._where} answered with something else than DICOM JSON "
                f"({type(error).__name__}); check url"
            ) from error


def _names(found: Dataset, keyword: str, value: str) -> bool:
    return any(str(code.get("CodeValue")) == value for code in found.get(keyword) or ())


def _reference(one: AvailableObject) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    return item


def _with(keyword: str, value: str) -> Dataset:
    item = Dataset()
    setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
