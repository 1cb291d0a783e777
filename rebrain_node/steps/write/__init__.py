"""Write: the derived objects of one result, as bytes (docs/objects.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, ObjectKind, Provenance
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.steps.write.encoding import encode
from rebrain_node.steps.write.enhanced_mr import write_enhanced_mr
from rebrain_node.steps.write.identity import COMPANIONS, AuditAnchor, ObjectOptions
from rebrain_node.steps.write.mr import write_classic_mr
from rebrain_node.steps.write.preview import write_preview
from rebrain_node.steps.write.references import write_key_objects
from rebrain_node.steps.write.report import write_report
from rebrain_node.steps.write.result import gather
from rebrain_node.steps.write.uncertainty import write_parametric_map, write_segmentation
from rebrain_node.steps.write.visible_mark import ink_of, write_presentation_state

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
    result = gather(synthetic, instances, provenance, findings, options, anchor)
    if options.ink != "none":
        result = replace(result, ink=ink_of(synthetic, options.ink))
    images = write_enhanced_mr(result) if result.is_enhanced else write_classic_mr(result)
    objects: list[tuple[ObjectKind, Dataset]] = [("MR", image) for image in images]
    if "PM" in options.companions:
        objects.append(("PM", write_parametric_map(result, images)))
    if "SEG" in options.companions:
        objects.append(("SEG", write_segmentation(result, images)))
    if "SC" in options.companions:
        objects.append(("SC", write_preview(result, images)))
    if "PR" in options.companions:
        objects.append(("PR", write_presentation_state(result, images)))
    if "SR" in options.companions:
        companions = [dataset for kind, dataset in objects if kind != "MR"]
        objects.append(("SR", write_report(result, images, companions)))
    if "KOS" in options.companions:
        objects.append(("KOS", write_key_objects(result, [dataset for _, dataset in objects])))
    written = tuple(encode(dataset, kind) for kind, dataset in objects)
    return DerivedSet(provenance=provenance, instances=written)
