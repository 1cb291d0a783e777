"""All objects of one result, in the order of sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, ObjectKind, Provenance
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.steps.write.encoding import encode
from rebrain_node.steps.write.enhanced_mr import write_enhanced_mr
from rebrain_node.steps.write.identity import AuditAnchor, ObjectOptions
from rebrain_node.steps.write.mr import write_classic_mr
from rebrain_node.steps.write.preview import write_preview
from rebrain_node.steps.write.references import write_key_objects
from rebrain_node.steps.write.report import write_report
from rebrain_node.steps.write.result import gather
from rebrain_node.steps.write.uncertainty import write_parametric_map, write_segmentation
from rebrain_node.steps.write.visible_mark import ink_of, write_presentation_state


def write_objects(
    synthetic: SyntheticVolume,
    instances: Sequence[Dataset],
    provenance: Provenance,
    findings: tuple[Finding, ...],
    options: ObjectOptions,
    anchor: AuditAnchor | None,
) -> DerivedSet:
    """Write the objects (`rebrain_node.steps.write.write`)."""
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
        report = write_report(result, images, [each for kind, each in objects if kind != "MR"])
        objects.append(("SR", report))
    if "KOS" in options.companions:
        objects.append(("KOS", write_key_objects(result, [dataset for _, dataset in objects])))
    del images
    objects.reverse()
    written = []
    while objects:  # each is given up once it is encoded: together they hold the pixels twice
        kind, dataset = objects.pop()
        written.append(encode(dataset, kind))
    return DerivedSet(provenance=provenance, instances=tuple(written))
