"""THE PATH of a series, top to bottom, one line per step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from rebrain_node.domain.guidance import guidance
from rebrain_node.domain.job import Job, Provenance, Receipt
from rebrain_node.domain.limits import Limits
from rebrain_node.errors import GateRefused, SeriesRejected
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.head_template import load_head_template
from rebrain_node.ports import AuditLog, Exemplars, Inbox, JsonValue, Model
from rebrain_node.steps.abstain import abstain
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check
from rebrain_node.steps.embed import embed
from rebrain_node.steps.estimate import estimate
from rebrain_node.steps.gate import gate
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.recognise import admit, recognise
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from rebrain_node.steps.write import AuditHead, ObjectOptions, write

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What the path needs from outside."""

    inbox: Inbox
    audit: AuditLog
    model: Model
    progress: Callable[[int, int], None] | None = None  #: told (slices drawn, slices in all)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What shapes a result beside the series itself."""

    bundle: ModelBundle
    limits: Limits
    objects: ObjectOptions
    software_version: str
    digest: str  #: SHA-256 of limits and object options


def process(job: Job, ports: Ports, configuration: Configuration) -> Receipt:
    """Take one selected series to a gated set of derived objects.

    Raises
    ------
    SeriesRejected
        The series must not be synthesised.
    GateRefused
        A written object is not fit to leave; a defect of ours, nothing is sent.
    """
    begun = time.monotonic()
    bundle, limits = configuration.bundle, configuration.limits
    recipe = bundle.recipe
    step, model = _Audited(job, ports.audit), ports.model
    instances = step(ports.inbox.read, job)
    provenance = _provenance(job, ports, configuration)
    seed = provenance.seed
    volume = step(assemble, instances)
    flags = step(check, volume, instances, limits)
    prepared = step(preprocess, volume, recipe)
    frame = step(locate, prepared, load_head_template()) if bundle.locates else None
    embeddings = step(embed, prepared, model.encoder, recipe) if model.encoder else None
    if bundle.ood_model is not None and frame is not None:
        strange = step(recognise, prepared, frame, embeddings, bundle.ood_model)
        step.tell("series.recognised", strange.told())
        flags += step(admit, strange, limits)
    guides = step(retrieve, prepared, recipe, frame, embeddings, model.exemplars)
    step.tell("series.guided", guidance(guides, frame, _digest(model.exemplars)))
    synthetic = step(
        synthesise, prepared, guides, model.engine, recipe, seed, progress=ports.progress
    )
    if model.scale is not None and bundle.calibration is not None:
        synthetic = step(estimate, synthetic, recipe, model.scale, bundle.calibration)
    doubts = step(abstain, synthetic, recipe.abstain, limits)
    findings = (*job.findings, *flags, *doubts)
    options = _options(job, ports, configuration)
    derived = step(write, synthetic, instances, provenance, findings, options)
    step(gate, derived, instances, options.companions, options.mr)
    seconds = time.monotonic() - begun
    return Receipt(
        job=job,
        derived=derived,
        guides=guides,
        uncertainty=synthetic.slice_uncertainty,
        meaning=synthetic.meaning,
        findings=findings,
        seconds=seconds,
    )


class _Audited:
    """Runs one step and puts what came of it on the audit log; no audit, no step."""

    def __init__(self, job: Job, audit: AuditLog) -> None:
        self._subject, self._revision = job.series_instance_uid, job.revision
        self._audit = audit

    def tell(self, event: str, details: Mapping[str, JsonValue]) -> None:
        """Put what a step decided on the audit log."""
        self._audit.record(event, self._subject, {"revision": self._revision, **details})

    def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        name = step.__name__
        begun = time.monotonic()
        try:
            result = step(*args, **kwargs)
        except (SeriesRejected, GateRefused) as error:
            codes = [finding.code for finding in error.findings]
            self._audit.record("step.failed", self._subject, {"step": name, "codes": codes})
            raise
        seconds = round(time.monotonic() - begun, 3)
        self._audit.record("step.completed", self._subject, {"step": name, "seconds": seconds})
        return result


def _digest(exemplars: Exemplars | None) -> str | None:
    return None if exemplars is None else exemplars.digest


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
    )


def _options(job: Job, ports: Ports, configuration: Configuration) -> ObjectOptions:
    """Give the writer the job's completeness and the audit log's newest row as an anchor."""
    head = ports.audit.head()
    anchor = None if head is None else AuditHead(sequence=head[0], sha256=head[1])
    return replace(configuration.objects, completeness=job.completeness, audit_head=anchor)
