"""Retrieves the structured reports of a destination: C-FIND and C-GET as SCU (PS3.4 annex C)."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from rebrain_node.domain.marks import SERIES_DESCRIPTION_WORD
from rebrain_node.errors import DeliveryError, QueryNotOfferedError
from rebrain_node.network.association import describe
from rebrain_node.network.query import FIND, GET, _accepts, _asking, _find, question_of
from rebrain_node.settings import DestinationSettings


def fetch_reports(destination: DestinationSettings, calling_ae_title: str, folder: Path) -> int:
    """Write every report of synthetic series that a destination holds into a folder; how many.

    Raises
    ------
    QueryNotOfferedError
        The destination does not accept C-FIND or C-GET.
    DeliveryError
        There is no association, or a query failed.
    """
    fetched = 0

    def keep(event: Event) -> int:
        nonlocal fetched
        fetched += 1
        (folder / f"{fetched:06}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    contexts = [
        build_context(FIND),
        build_context(GET),
        build_context(Comprehensive3DSRStorage),
    ]
    with _asking(
        destination,
        calling_ae_title,
        contexts,
        roles=[build_role(Comprehensive3DSRStorage, scp_role=True)],
        handlers=[(evt.EVT_C_STORE, keep)],
    ) as association:
        if not _accepts(association, GET):
            raise QueryNotOfferedError(
                f"{describe(destination)} does not accept C-GET (study root); export its "
                "structured reports into a folder and name that"
            )
        for study, series in _series(destination, association):
            _get(destination, association, study, series)
    return fetched


def _series(destination: DestinationSettings, association: Association) -> list[tuple[str, str]]:
    """Find the series of reports about synthetic series, in all studies that hold an SR."""
    question = question_of("studies with reports", "SR")
    found = []
    for study in _find(destination, association, question):
        question = question_of("reports", study.StudyInstanceUID, "SR")
        for series in _find(destination, association, question):
            words = str(series.get("SeriesDescription") or SERIES_DESCRIPTION_WORD)
            if SERIES_DESCRIPTION_WORD in words and series.get("Modality", "SR") == "SR":
                found.append((str(study.StudyInstanceUID), str(series.SeriesInstanceUID)))
    return found


def _get(
    destination: DestinationSettings, association: Association, study: str, series: str
) -> None:
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID, question.SeriesInstanceUID = study, series
    for status, _ in association.send_c_get(question, GET):
        code = status.get("Status")
        if code not in (0x0000, 0xFF00):
            said = "nothing in time" if code is None else f"0x{code:04X}"
            raise DeliveryError(f"{describe(destination)} answered {said} to C-GET of {series}")
