"""THE PATH of a series, top to bottom, one line per step.

The worker and the folder command call the same two functions: `judge_study` decides which series
of a study is synthesised, `process` takes that series to a gated set of derived objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from pydicom.dataset import Dataset

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.guidance import guidance
from rebrain_node.domain.job import Job, Provenance, Receipt
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.selection import Selection
from rebrain_node.domain.uncertainty import uncertainty_details
from rebrain_node.domain.volume import (
    Guide,
    PreparedVolume,
    SourceVolume,
    SyntheticVolume,
    TissueLevel,
)
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.errors import GateError, SeriesRejectedError
from rebrain_node.instance.memory import return_memory
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.ports import AuditLog, Inbox
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check
from rebrain_node.steps.estimate import abstain, estimate
from rebrain_node.steps.examine import examine
from rebrain_node.steps.gate import gate
from rebrain_node.steps.locate import locate
from rebrain_node.steps.ood import admit, recognise, without_domain
from rebrain_node.steps.preprocess import judge_tissue, preprocess
from rebrain_node.steps.retrieve import embed, retrieve
from rebrain_node.steps.select import select
from rebrain_node.steps.sign import NodeSigner, sign
from rebrain_node.steps.synthesise import synthesise
from rebrain_node.steps.write import AuditAnchor, ObjectOptions, write

P = ParamSpec("P")
T = TypeVar("T")
Findings = tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What the path needs from outside."""

    inbox: Inbox
    audit: AuditLog
    model: LoadedModel
    signer: NodeSigner
    progress: Callable[[int, int], None] | None = None  #: called with (slices done, slices in all)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a result depends on beside the series itself."""

    bundle: ModelBundle
    limits: Limits
    objects: ObjectOptions
    software_version: str
    digest: str  #: SHA-256 of limits and object options


def judge_study(
    instances: Sequence[Dataset],
    limits: Limits,
    unfit: Mapping[str, Sequence[Finding]] | None = None,
) -> Selection:
    """Decide from the headers which series of a study is synthesised; at most one of each study.

    Parameters
    ----------
    instances : sequence of Dataset
        Of one study or of several, in any order, with or without pixel data.
    limits : Limits
        The clinical lead's.
    unfit : mapping of str to sequence of Finding, optional
        What `process` refused of these series, by UID: the next that will do is selected.
    """
    return select(instances, limits, unfit)


def process(job: Job, ports: Ports, configuration: Configuration) -> Receipt:
    """Take one selected series to a gated set of derived objects.

    Raises
    ------
    SeriesRejectedError
        The series must not be synthesised.
    GateError
        A written object is not fit to leave; a defect of ours, nothing is sent.
    """
    start = time.monotonic()
    recipe, limits, objects = (
        configuration.bundle.recipe,
        configuration.limits,
        configuration.objects,
    )
    step = StepRunner(job, ports.audit)
    instances = step(ports.inbox.read, job)
    provenance = _provenance(job, ports, configuration)
    volume = step(assemble, instances, limits.geometry)
    instances = _assembled(instances, volume)
    flags = step(check, volume, instances, limits)
    prepared = step(preprocess, volume, recipe)
    del volume
    level_flags = recorded_level(step, prepared.tissue)
    guides, ood_flags = guide(step, prepared, ports.model, configuration)
    synthetic = step(
        synthesise, prepared, guides, ports.model.engine, recipe, provenance.seed,
        progress=ports.progress,
    )  # fmt: skip
    step(examine, synthetic)
    guides = synthetic.guides
    synthetic, uncertainty_flags = quantify(step, synthetic, ports.model, configuration)
    findings = (*job.findings, *flags, *level_flags, *ood_flags, *uncertainty_flags)
    derived = step(write, synthetic, instances, provenance, findings, objects, _anchor(ports.audit))
    uncertainty, meaning = synthetic.slice_uncertainty, synthetic.meaning
    tissue = prepared.tissue
    del synthetic, prepared
    step(
        gate, derived, instances, objects.companions, objects.mr, recipe.output.stored_range,
        objects.watermark,
    )  # fmt: skip
    manifest = step(sign, derived, ports.signer)
    return Receipt(
        job=job,
        derived=derived,
        manifest=manifest,
        guides=guides,
        uncertainty=uncertainty,
        meaning=meaning,
        findings=findings,
        ood=step.ood,
        tissue=tissue,
        step_seconds=step.seconds,
        seconds=time.monotonic() - start,
    )


def recorded_level(step: StepRunner, tissue: TissueLevel | None) -> Findings:
    """Record how the series was shifted to the level of brain tissue, and judge it."""
    if tissue is None:
        return ()
    step.record(Event.TISSUE_LEVEL, tissue.to_json())
    return judge_tissue(tissue)


def guide(
    step: StepRunner, prepared: PreparedVolume, model: LoadedModel, configuration: Configuration
) -> tuple[tuple[Guide, ...], Findings]:
    """Decide how each target slice is made, and whether the series is in the model's distribution.

    Raises
    ------
    SeriesRejectedError
        The series is out of distribution and the site's policy refuses such series.
    """
    recipe, flags = configuration.bundle.recipe, Findings()
    if model.ood_model is None:
        flags = (without_domain(f"{configuration.bundle.name} {configuration.bundle.version}"),)
    frame = step(locate, prepared, model.template) if model.template else None
    embeddings = step(embed, prepared, model.encoder, recipe) if model.encoder else None
    if model.ood_model and frame:
        step.ood = step(recognise, prepared, frame, embeddings, model.ood_model)
        step.record(Event.SERIES_RECOGNISED, step.ood.to_json())
        flags = step(admit, step.ood, configuration.limits)
    guides = step(retrieve, prepared, recipe, frame, embeddings, model.exemplars)
    digest = model.exemplars.digest if model.exemplars else None
    step.record(Event.SERIES_GUIDED, guidance(guides, frame, digest))
    return guides, flags


def quantify(
    step: StepRunner, synthetic: SyntheticVolume, model: LoadedModel, configuration: Configuration
) -> tuple[SyntheticVolume, Findings]:
    """Estimate a calibrated uncertainty where the bundle has one, and flag what is too uncertain.

    Raises
    ------
    SeriesRejectedError
        Too many slices are uncertain and the site's policy refuses such series.
    """
    recipe = configuration.bundle.recipe
    if model.scale and model.calibration:
        synthetic = step(estimate, synthetic, recipe, model.scale, model.calibration)
    details = uncertainty_details(synthetic.slice_uncertainty, synthetic.meaning)
    step.record(Event.SERIES_UNCERTAINTY, details)
    return synthetic, step(abstain, synthetic, recipe.abstain, configuration.limits)


class StepRunner:
    """Runs one step at a time and records its result on the audit log; no audit, no step.

    Attributes
    ----------
    seconds : dict of str to float
        How long each step took, by its name.
    ood : OodScore or None
        The score of the series, once it is known.
    """

    def __init__(self, job: Job, audit: AuditLog) -> None:
        self._subject, self._revision = job.series_instance_uid, job.revision
        self._audit = audit
        self.seconds: dict[str, float] = {}
        self.ood: OodScore | None = None

    def record(self, event: Event, details: Mapping[str, Any]) -> None:
        """Put what a step decided on the audit log."""
        self._audit.record(event, self._subject, {"revision": self._revision, **details})

    def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step, note its seconds and record that it completed or failed.

        Raises
        ------
        SeriesRejectedError
            The step refused the series; the audit log has the codes.
        GateError
            The step refused a written object; so has it.
        """
        name = step.__name__
        start = time.monotonic()
        try:
            result = step(*args, **kwargs)
        except (SeriesRejectedError, GateError) as error:
            error.ood = self.ood
            codes = [finding.code for finding in error.findings]
            self._audit.record(Event.STEP_FAILED, self._subject, {"step": name, "codes": codes})
            raise
        return_memory()
        self.seconds[name] = round(time.monotonic() - start, 3)
        self._audit.record(
            Event.STEP_COMPLETED, self._subject, {"step": name, "seconds": self.seconds[name]}
        )
        return result


def _assembled(instances: Sequence[Dataset], volume: SourceVolume) -> tuple[Dataset, ...]:
    """Return the instances of which the volume consists: a scout or a second pass is not."""
    used = set(volume.sop_instance_uids)
    return tuple(instance for instance in instances if str(instance.SOPInstanceUID) in used)


def _provenance(job: Job, ports: Ports, configuration: Configuration) -> Provenance:
    """Collect everything the bytes of the result will depend on."""
    bundle = configuration.bundle
    return Provenance(
        source_series_uid=job.series_instance_uid,
        input_digest=ports.inbox.input_digest(job),
        bundle_name=bundle.name,
        bundle_version=bundle.version,
        bundle_digest=bundle.digest,
        engine_identity=ports.model.engine.identity,
        configuration_digest=configuration.digest,
        software_version=configuration.software_version,
        revision=job.revision,
        predecessor=job.predecessor,
        completeness=job.completeness,
    )


def _anchor(audit: AuditLog) -> AuditAnchor | None:
    """Return the newest row of the audit log, which the report and the key objects name."""
    signed = audit.checkpoint()
    if signed is not None:
        return AuditAnchor(
            sequence=signed.sequence, sha256=signed.hash, signature=signed.anchor_text
        )
    head = audit.head()
    return None if head is None else AuditAnchor(sequence=head[0], sha256=head[1])
