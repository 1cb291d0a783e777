"""Instance Availability Notification as SCU (PS3.4 annex R): a system hears what a PACS holds."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.presentation import build_context

from rebrain_node.domain.notification import AvailabilityReport
from rebrain_node.errors import DeliveryError
from rebrain_node.network.association import associated, describe
from rebrain_node.settings import NotificationSettings

#: Instance Availability Notification SOP Class (PS3.4 R.3.3)
AVAILABILITY = UID("1.2.840.10008.5.1.4.33")


@dataclass(frozen=True)
class AvailabilityReceiver:
    """One system that is notified (port ``NotificationReceiver``)."""

    settings: NotificationSettings
    calling_ae_title: str

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self.settings.name

    def notify(self, report: AvailabilityReport) -> int:
        """Send one notification (N-CREATE) and return the status of the response.

        Raises
        ------
        UnreachableError
            There is no association, or the receiver takes no notifications.
        DeliveryError
            No answer came in time.
        """
        with associated(
            self.settings, self.calling_ae_title, [build_context(AVAILABILITY)]
        ) as association:
            answer, _ = association.send_n_create(
                _attributes(report), AVAILABILITY, report.sop_instance_uid
            )
            status = getattr(answer, "Status", None)
        if status is None:
            raise DeliveryError(
                f"{describe(self.settings)} gave no answer to the notification within "
                f"{self.settings.timeout_s:g} s or ended the association"
            )
        return int(status)

    def check(self) -> None:
        """Associate, and release without a notification.

        Raises
        ------
        DeliveryError
            There is no association, or the receiver takes no notifications; says what to do.
        """
        with associated(self.settings, self.calling_ae_title, [build_context(AVAILABILITY)]):
            pass


def _attributes(report: AvailabilityReport) -> Dataset:
    """Build the attributes of PS3.4 table R.3.2-1; it forbids the SCU any other."""
    data = Dataset()
    data.ReferencedPerformedProcedureStepSequence = []
    data.StudyInstanceUID = report.study_instance_uid
    data.ReferencedSeriesSequence = []
    for uid in dict.fromkeys(one.series_instance_uid for one in report.objects):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = []
        for one in report.objects:
            if one.series_instance_uid == uid:
                item = Dataset()
                item.ReferencedSOPClassUID = one.sop_class_uid
                item.ReferencedSOPInstanceUID = one.sop_instance_uid
                item.InstanceAvailability = "ONLINE"
                item.RetrieveAETitle = report.retrieve_ae_title
                series.ReferencedSOPSequence.append(item)
        data.ReferencedSeriesSequence.append(series)
    return data
