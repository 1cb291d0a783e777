"""Write: the derived objects of one result, as bytes (docs/objects.md).

highdicom is large; it is loaded when the first result is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, Provenance
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.steps.write.identity import COMPANIONS, AuditAnchor, ObjectOptions

__all__ = ["COMPANIONS", "AuditAnchor", "ObjectOptions", "write"]


def write(
    synthetic: SyntheticVolume,
    instances: Sequence[Dataset],
    provenance: Provenance,
    findings: tuple[Finding, ...],
    options: ObjectOptions,
    anchor: AuditAnchor | None = None,
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
    anchor : AuditAnchor or None
        The newest row of the audit log; None without one, as in ``process``.

    Returns
    -------
    DerivedSet
        In the order in which they are sent: MR, PM, SEG, SC, PR, SR, KOS.

    Raises
    ------
    EngineError
        The volume holds values that are not finite.
    SeriesRejectedError
        Text of the source does not fit its declared character set.
    """
    from rebrain_node.steps.write.objects import write_objects

    return write_objects(synthetic, instances, provenance, findings, options, anchor)
