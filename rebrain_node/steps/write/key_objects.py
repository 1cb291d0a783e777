"""The list of the whole set, sent last: who has it has everything (PS3.3 A.35.4, TID 2010)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from rebrain_node.domain import marks
from rebrain_node.steps.write.references import listed
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.stamp import stamp


def write_key_objects(result: Result, objects: Sequence[Dataset]) -> Dataset:
    """Build the Key Object Selection over all objects written before it."""
    references = [listed(dataset) for dataset in objects]
    content = KeyObjectSelection(
        document_title=codes.DCM.ForResearch,
        referenced_objects=references,
        description=(
            f"{marks.COMMENT_PREFIX}: complete set of {len(references)} objects derived from one "
            f"CT series, research only, {marks.NOT_FOR_DIAGNOSIS}"
        ),
    )
    dataset = KeyObjectSelectionDocument(
        evidence=references,
        content=content,
        series_instance_uid=result.uids.series("KOS"),
        series_number=result.series_number("KOS"),
        sop_instance_uid=result.uids.instance("KOS"),
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} complete set of MR T1",
    )
    stamp(dataset, result)
    return dataset
