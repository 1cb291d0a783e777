"""What the acceptance of a bundle is measured on, and the figures of each case.

Every case gives its figures for the volumes as synthesised and, where truth is dense, for the same
volumes blurred in plane: what a blur can win must not decide. Figures are numbers by name; a case
whose data are absent gives none and says why.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from scipy import ndimage as ndi

from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import InstanceError
from rebrain_node.instance.codecs import register
from rebrain_node.instance.read import read_instance
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.select import select
from trainer.calibrate.intervals import top_share
from trainer.calibrate.run import SubjectSplit
from trainer.data.archive import open_any
from trainer.data.dataset import DatasetError, Mask, Volume
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.continuity import stripe_ratio
from trainer.evaluate.methods import NetworkMethod
from trainer.evaluate.metrics import Reference, correlation, lncc
from trainer.evaluate.networks import network_of_bundle
from trainer.evaluate.planted import KINDS, LEUKOARAIOSIS, planted
from trainer.evaluate.release_scores import PAIRS
from trainer.evaluate.run import summarise
from trainer.evaluate.scanned_heads import (
    DEMONSTRATION,
    NodeResult,
    NodeRunner,
    WholeHead,
    demonstration_head,
)
from trainer.evaluate.spectrum import band_amplitudes, spectrum_error
from trainer.evaluate.tissue import (
    CSF_BELOW,
    SURE,
    TISSUE_ABOVE,
    contrast_kept,
    csf_share,
    tissue_correlation,
)
from trainer.evaluate.volumes import relative_errors
from trainer.heads import Head, catalogue
from trainer.release.card import OURS
from trainer.simulate.labels import read_maps

BLUR_PX: Final = 3.0
HOSPITAL: Final = "ct_toshiba_head_study"
HOSPITAL_STUDY: Final = "hospital study"
HELD_OUT_HEADS: Final = "held-out heads"
#: errors of the scanner that reads a head with planted disease, HU
SHIFTS_HU: Final = (0.0, -6.0, 6.0)
_SLICE_MM = 5.0
_HYPODENSE = (16.0, 20.0)
_SMOOTH_PX = 2.0  # of the CT of the hospital study, so that noise does not make the class
_SEED = 2024


@dataclass(frozen=True)
class CaseOutcome:
    """Figures of one case."""

    figures: dict[str, float] = field(default_factory=dict)
    #: the same of the volumes blurred by a Gaussian of `BLUR_PX` in plane
    blurred: dict[str, float] = field(default_factory=dict)
    #: figures by subject, where there are several
    subjects: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  #: what was not measured, and why


def blurred(volume: Volume) -> Volume:
    """Blur each slice by a Gaussian of 3 pixels."""
    return np.asarray(ndi.gaussian_filter(volume, (0, BLUR_PX, BLUR_PX)), dtype=np.float32)


def dense_figures(image: Volume, truth: Volume, result: NodeResult) -> dict[str, float]:
    """Compare a volume with the true T1 at every position, inside the skull."""
    brain = result.brain
    return {
        "stripe_ratio": stripe_ratio(image, brain, result.measured),
        "brain_correlation": correlation(image, truth, brain),
        "tissue_correlation": tissue_correlation(image, truth, brain, TISSUE_ABOVE),
        "lncc": lncc(image, truth, brain),
        "spectrum_error": spectrum_error(image, truth, brain),
        **band_amplitudes(image, truth, brain),
    }


Show = Callable[[str, NodeResult, Volume | None], None]  # case, result, truth


def demonstration(synthesis: NodeRunner, head: WholeHead, show: Show) -> CaseOutcome:
    """Synthesise the demonstration head in whole and compare it with its T1."""
    result = synthesis.result(head.scanned())
    truth = head.on(head.t1, result.volume)
    show(DEMONSTRATION, result, truth)
    errors, note = relative_errors(result, truth)
    figures = dense_figures(result.image, truth, result) | errors | {"seconds": result.seconds}
    uncertain = synthesis.uncertainty(result)
    if uncertain is not None:
        figures["map_stripe_ratio"] = stripe_ratio(uncertain, result.brain, result.measured)
    return CaseOutcome(
        figures=figures,
        blurred=dense_figures(blurred(result.image), truth, result),
        notes=(note,) if note else (),
    )


def held_out_heads(synthesis: NodeRunner, heads: Sequence[Head], maps: Path) -> CaseOutcome:
    """Measure volumes and coverage in the synthetic T1 of drawn heads no weight learned from.

    Coverage is that of the map as delivered, over all slices and the whole head.

    Figures are means over heads, with `_low` and `_high` the ends of their 95 % interval,
    bootstrapped over heads.
    """
    subjects, notes = {}, set()
    for head in heads:
        rng = np.random.default_rng((_SEED, zlib.crc32(head.name.encode())))
        drawn = read_maps(maps / f"{head.name}.npz", 1.0 if head.sharp else 2.0).drawn(rng)
        whole = WholeHead(name=head.name, hu=drawn.hu, t1=drawn.anatomy.t1)
        result = synthesis.result(whole.scanned())
        truth = whole.on(whole.t1, result.volume)
        errors, note = relative_errors(result, truth)
        figures = errors | {"brain_correlation": correlation(result.image, truth, result.brain)}
        uncertain = synthesis.uncertainty(result)
        if uncertain is not None:
            within = np.abs(result.image - truth) <= uncertain
            figures["coverage"] = float(within[result.volume.head].mean())
        subjects[head.name] = figures
        notes |= {note} - {""}
    figures = _mean(subjects)
    for name in tuple(figures):
        of_heads = {head: each[name] for head, each in subjects.items() if name in each}
        figures[f"{name}_low"], figures[f"{name}_high"] = summarise(of_heads, _SEED)["ci95"]
    return CaseOutcome(figures, subjects=subjects, notes=tuple(sorted(notes)))


def hospital(synthesis: NodeRunner, data: Path, show: Show) -> CaseOutcome:
    """Synthesise the hospital study: stripes, and hypodense brain drawn as CSF."""
    folder = data / HOSPITAL
    if not folder.is_dir():
        return CaseOutcome(notes=(f"{folder} is not there: no real study was synthesised",))
    result = synthesis.result(selected_series(folder))
    show(HOSPITAL_STUDY, result, None)
    return CaseOutcome(
        figures={
            "stripe_ratio": stripe_ratio(result.image, result.brain, result.measured),
            "hypodense_as_csf": hypodense_as_csf(result),
            "seconds": result.seconds,
        }
    )


def hypodense_as_csf(result: NodeResult) -> float:
    """Share of the brain of 16 to 20 HU that is synthesised below 0.2, at measured slices.

    The CT is smoothed by a Gaussian of 2 pixels in plane; CSF beside brain counts too, so the
    figure is not 0 for a perfect result.
    """
    smooth = ndi.gaussian_filter(result.hu, (0, _SMOOTH_PX, _SMOOTH_PX))
    rows = np.flatnonzero(result.measured)
    slices = [result.volume.guides[row].target.below for row in rows]
    low, high = _HYPODENSE
    chosen = result.brain[rows] & (smooth[slices] >= low) & (smooth[slices] <= high)
    return csf_share(result.image[rows], chosen)


def selected_series(folder: Path) -> SourceVolume:
    """Read the series of a study that the node would synthesise.

    Raises
    ------
    DatasetError
        The node would synthesise none of them.
    """
    register()
    limits = shipped_limits()
    instances = []
    for path in sorted(folder.iterdir()):
        try:
            instances.append(read_instance(path.read_bytes()))
        except InstanceError:
            continue  # no instance: a licence or a note beside the images
    accepted = [c for c in select(instances, limits).candidates if c.decision == "accepted"]
    if not accepted:
        raise DatasetError(f"{folder}: the node accepts no series of this study")
    uid = accepted[0].series_instance_uid
    return assemble([i for i in instances if str(i.SeriesInstanceUID) == uid], limits.geometry)


def disease(synthesis: NodeRunner, head: WholeHead) -> CaseOutcome:
    """Plant disease into a head, under three calibrations of the scanner.

    Figures: the share of planted hypodense white matter drawn as CSF (`false_csf`, the mean over
    calibrations, and `false_csf_worst`), the share of the planted cyst drawn as CSF (`cyst_csf`,
    the least), the contrast of each kind that is kept (without a calibration error), and how much
    of the false CSF lies in the most uncertain 5 % of the brain (`false_csf_uncertain`, the mean).
    """
    false, cysts, marked, contrast = [], [], [], {}
    sick = planted(head)
    for shift in SHIFTS_HU:
        result = synthesis.result(sick.scanned(shift), measured_only=True)
        inside = {
            kind: sick.on(member, result.volume, _SLICE_MM) > SURE
            for kind, member in sick.planted.items()
        }
        false.append(csf_share(result.image, inside[LEUKOARAIOSIS]))
        wrong = inside[LEUKOARAIOSIS] & (result.image < CSF_BELOW) & result.brain
        uncertain = synthesis.uncertainty(result)
        if uncertain is not None and wrong.any():
            marked.append(top_share(uncertain, result.brain, wrong))
        if "cyst" in inside:
            cysts.append(csf_share(result.image, inside["cyst"]))
        if shift == 0:
            sound = synthesis.result(head.scanned(), measured_only=True)
            truths = tuple(each.on(each.t1, result.volume, _SLICE_MM) for each in (sick, head))
            contrast = {
                f"contrast_{kind}": contrast_kept(
                    (result.image, sound.image), (truths[0], truths[1]), inside[kind]
                )
                for kind in KINDS
                if kind in inside
            }
    return CaseOutcome(
        figures={
            "false_csf": float(np.mean(false)),
            "false_csf_worst": float(np.max(false)),
            **({"cyst_csf": float(np.min(cysts))} if cysts else {}),
            **({"false_csf_uncertain": float(np.mean(marked))} if marked else {}),
            **contrast,
        }
    )


def real_pairs(bundle: ModelBundle, data: Path, advance: Callable[[], None]) -> CaseOutcome:
    """Score the real pairs, registered; `unregistered_` figures are of the pairs as published."""
    archive = data / PAIRS
    if not archive.is_file():
        return CaseOutcome(notes=(f"{archive} is not there: no real pair was scored",))
    registered, published = open_any(archive, registered=True), open_any(archive)
    method = NetworkMethod(OURS, network_of_bundle(bundle), registered, _SEED)
    subjects: dict[str, dict[str, float]] = {}
    soft: dict[str, dict[str, float]] = {}
    for name in registered.names:
        cases = [thinned(each.subject(name), Sparsity("none")) for each in (registered, published)]
        truth, plain = (Reference.of(case, volumetric=False) for case in cases)
        _, image = next(iter(method.synthesise(cases[0], advance)))
        subjects[name] = _pair_figures(image, truth)
        subjects[name] |= {
            f"unregistered_{key}": value for key, value in _pair_figures(image, plain).items()
        }
        soft[name] = _pair_figures(blurred(image), truth)
    return CaseOutcome(_mean(subjects), _mean(soft), subjects)


def _pair_figures(image: Volume, truth: Reference) -> dict[str, float]:
    brain: Mask = truth.head if truth.brain is None else truth.brain
    return {
        "brain_correlation": correlation(image, truth.reference, brain),
        "tissue_correlation": tissue_correlation(image, truth.reference, brain),
        "lncc": lncc(image, truth.reference, brain),
        "spectrum_error": spectrum_error(image, truth.reference, truth.head),
        **band_amplitudes(image, truth.reference, brain),
    }


def _mean(subjects: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in subjects.values() for name in each)
    return {
        name: float(np.mean([each[name] for each in subjects.values() if name in each]))
        for name in names
    }


def uncertainty(bundle: ModelBundle) -> CaseOutcome:
    """Read from the card how many of the voxels the intervals of 90 % cover, and on how many heads.

    The card has these figures from `rebrain-train calibrate`: each subject by the widths of the
    others.
    """
    if bundle.calibration is None:
        return CaseOutcome(notes=("the bundle has no calibrated uncertainty",))
    covered = [
        score.figures["covered_90%"]
        for score in bundle.card.scores
        if "covered_90%" in score.figures
    ]
    found = {"people": float(bundle.calibration.people)}
    return CaseOutcome(found | ({"coverage": float(np.mean(covered))} if covered else {}))


def cases(
    bundle: ModelBundle,
    data: Path | None,
    maps: Path | None,
    advance: Callable[[], None],
    show: Show,
) -> Iterator[tuple[str, CaseOutcome]]:
    """Yield the figures of each case of a bundle under its name.

    Parameters
    ----------
    data : Path or None
        Folder of shared data; None where there is none.
    maps : Path or None
        Folder of tissue maps; None leaves out the held-out heads.
    advance : callable
        Called after each position of the real pairs.
    show : callable
        Called with name, result and true T1 (or None) of the cases that a picture shows.
    """
    synthesis = NodeRunner.of(bundle)
    head = demonstration_head()
    yield DEMONSTRATION, demonstration(synthesis, head, show)
    yield "planted disease", disease(synthesis, head)
    absent = CaseOutcome(notes=("no folder of data was given, and REBRAIN_DATA is not set",))
    yield HOSPITAL_STUDY, absent if data is None else hospital(synthesis, data, show)
    yield "real pairs", absent if data is None else real_pairs(bundle, data, advance)
    yield "uncertainty", uncertainty(bundle)
    if maps is not None and data is not None:
        heads = SubjectSplit.of(catalogue(data), maps).held_out
        drawn = [head for head in heads if head.role != "demonstration"]
        yield HELD_OUT_HEADS, held_out_heads(synthesis, drawn, maps)
