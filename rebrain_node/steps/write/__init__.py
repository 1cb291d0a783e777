"""Write: the derived objects of one result, as bytes (docs/objects.md)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, Provenance
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.steps.write.mr import write_mr
from rebrain_node.steps.write.options import AuditHead, ObjectOptions
from rebrain_node.steps.write.result import gather
from rebrain_node.steps.write.stamp import encode

__all__ = ["AuditHead", "ObjectOptions", "write"]


def write(
    synthetic: SyntheticVolume,
    instances: Sequence[Dataset],
    provenance: Provenance,
    findings: tuple[Finding, ...],
    options: ObjectOptions,
) -> DerivedSet:
    """Write the MR series and its companions; a pure function: same input, same bytes.

    Parameters
    ----------
    synthetic : SyntheticVolume
        Intensity and uncertainty in [0, 1] on the recipe's grid, with provenance by slice.
    instances : Sequence[Dataset]
        The source series; patient and study are copied from it byte by byte.
    provenance : Provenance
        What the UIDs of the objects are a function of.
    findings : tuple of Finding
        Flags with which the result is published.
    options : ObjectOptions
        Which companions, and how.

    Returns
    -------
    DerivedSet
        In the order in which they are sent: MR, PM, SEG, SC, SR, KOS.

    Raises
    ------
    EngineFailed
        The volume holds values that are not finite.
    SeriesRejected
        Text of the source does not fit its declared character set.
    """
    result = gather(synthetic, instances, provenance, findings, options)
    images = write_mr(result)
    written = [encode(image, "MR") for image in images]
    return DerivedSet(provenance=provenance, instances=tuple(written))
