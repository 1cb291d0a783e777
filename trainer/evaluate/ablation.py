"""The ablation of guidance on held-out subjects (Tables 4 and 5, Figures 6 and 11 of the paper).

Protocols decimate:2, :4 and :8 (gaps of 5, 10 and 20 mm of heads prepared at 2.5 mm), missing
positions alone, scored inside the brain and in the whole head. Every figure is a mean over the
positions of a subject, then over subjects, with the bootstrap interval of that mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

import numpy as np
from scipy import stats

from rebrain_node.engine.open import open_encoder
from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.source import conditioning_at
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, parse
from rebrain_node.retrieval.search import FaissExemplars
from trainer.data.dataset import PreparedData
from trainer.data.placing import placements, source_slices
from trainer.data.protocols import Case, Sparsity, thinned
from trainer.evaluate.networks import Network, Retriever, network_of_bundle
from trainer.evaluate.results import BundleFacts, MetricSummary
from trainer.evaluate.run import Progress, summarise
from trainer.evaluate.variants import (
    VARIANTS,
    FilledSlice,
    FillRequest,
    PlantedLesion,
    Sampler,
    fill,
    plant,
)
from trainer.ood.report import exact_interval

PROTOCOLS: Final = ("decimate:2", "decimate:4", "decimate:8")
#: what guidance must exceed to be worth its cost
RIVALS: Final = ("slerp", "linear")
SHARES: Final = (1.0, 0.7, 0.5, 0.3)  # of the subjects of the knowledge base
_ANY = -1.0  # a tau that every exemplar reaches


class VariantComparison(TypedDict):
    """One variant: its SSIM and error, and by how much "full" has the higher SSIM."""

    ssim: MetricSummary
    mae: MetricSummary
    gain: MetricSummary


class ThresholdResult(TypedDict):
    """The recipe at one percentage of the threshold."""

    percent: int
    tau: float
    accepted: float
    ssim: float


class SizeResult(TypedDict):
    """The recipe with a part of the subjects in the knowledge base."""

    share: float
    people: int
    accepted: float
    position_error_mm: float
    ssim: float


class LesionResult(TypedDict):
    """Leak and erasure, each with its exact binomial 95 % interval."""

    planted: int
    leaked: float
    leaked_ci95: list[float]
    leak_largest: float
    drawn: int
    erased: float
    erased_ci95: list[float]
    kept_median: float


class Ablation(TypedDict):
    """The whole ablation as JSON; `people` counts subjects.

    `ways` (the whole head) and `brain` by protocol and variant; `brain` is empty where the data
    set has no masks of the brain. `most` limits the positions of a subject and protocol.
    """

    format: int
    bundle: BundleFacts
    knowledge_base: str
    data: str
    subjects: list[str]
    seed: int
    positions: dict[str, int]
    most: int | None
    gaps_mm: dict[str, float]
    retrieved: dict[str, float]
    ways: dict[str, dict[str, VariantComparison]]
    brain: dict[str, dict[str, VariantComparison]]
    percents: list[ThresholdResult]
    sizes: list[SizeResult]
    similarity_error: dict[str, float]
    points: list[list[float]]
    lesions: LesionResult | None
    verdict: str


class AblationError(RebrainError):
    """The bundle or the data do not allow an ablation."""


@dataclass(frozen=True)
class AblationSetup:
    """The network of an ablation, its knowledge base at any tau, and the held-out subjects."""

    bundle: ModelBundle
    network: Network
    base: KnowledgeBase
    retriever: Retriever
    sampler: Sampler
    data: PreparedData
    names: tuple[str, ...]
    most: int | None  #: missing positions of a subject and protocol; None: all
    thorough: bool

    @classmethod
    def of(cls, request: "AblationRequest") -> "AblationSetup":
        """Open a bundle for an ablation on the test subjects of `data`.

        Raises
        ------
        AblationError
            The bundle retrieves none, the data are no volumes of CT in HU, or none is held out.
        """
        bundle, data = request.bundle, request.data
        if not bundle.recipe.retrieves:
            raise AblationError(
                f"bundle {bundle.name} {bundle.version} retrieves no exemplars: there is nothing "
                "to leave out; make one with `rebrain-train add-retrieval`"
            )
        names = data.split["test"]
        if data.source_kind != "ct" or not data.volumetric or not names:
            raise AblationError(
                "the ablation needs volumes of CT in HU with subjects in the split test, these are "
                f"{data.source_kind!r}, volumes: {data.volumetric}, subjects: {len(names)}"
            )
        network = network_of_bundle(bundle)
        base = parse(bundle.exemplars, "exemplars")
        retriever = Retriever(
            open_encoder("openvino", bundle), FaissExemplars(base, _ANY), bundle.recipe
        )
        sampler = Sampler.of(network, request.seed)
        return cls(
            bundle,
            network,
            base,
            retriever,
            sampler,
            data,
            names,
            request.most,
            request.thorough,
        )

    @property
    def tau(self) -> float:
        """Threshold of the recipe."""
        retrieval = self.bundle.recipe.retrieval
        return self.base.tau(retrieval.p) if retrieval.tau is None else retrieval.tau

    def case(self, name: str, protocol: str) -> Case:
        """Put a subject under a protocol."""
        return thinned(self.data.subject(name), Sparsity.parse(protocol))

    def filled_slices(
        self,
        protocol: str,
        retriever: Retriever,
        advance: Callable[[], None],
        variants: Sequence[str] = VARIANTS,
    ) -> list[FilledSlice]:
        """Synthesise the missing positions of every subject by some variants."""
        found = []
        for name in self.names:
            case = self.case(name, protocol)
            (placement,) = placements(case.head, case.subject.pixel_mm, self.network.recipe)
            recipes = [self.network.recipe]
            if "full-registered" in variants:
                recipes.append(_registering(self.network.recipe))
            rows = FillRequest(most=self.most).rows(case)
            guides, *registered = retriever.guides_at(case, placement, rows, *recipes)
            request = FillRequest(variants, self.most, *registered)
            found += fill(case, guides, self.sampler, advance, request)
        return found

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that are compared; a brief ablation leaves out the one that is far worse."""
        left_out = set() if self.thorough else {"as-source"}
        if self.bundle.recipe.retrieval.registration != "none":
            left_out.add("full-registered")  # it is what the recipe does
        return tuple(variant for variant in VARIANTS if variant not in left_out)

    def missing(self, protocol: str) -> int:
        """Count the positions that are synthesised of all subjects."""
        request = FillRequest(most=self.most)
        return sum(len(request.rows(self.case(name, protocol))) for name in self.names)

    def gap_mm(self, protocol: str) -> float:
        """Median distance between the slices given."""
        gaps = [np.diff(self.case(name, protocol).positions_mm) for name in self.names]
        return float(np.median(np.concatenate(gaps)))


@dataclass(frozen=True)
class AblationRequest:
    """The bundle of an ablation and its data; `seed` of the noise and of the bootstrap."""

    bundle: ModelBundle
    data: PreparedData
    data_name: str
    seed: int
    most: int | None = None  #: missing positions of a subject and protocol; None: all
    #: whether smaller bases, planted lesions and exemplars as the source are measured too
    thorough: bool = True


def ablate(request: AblationRequest, progress: Progress) -> Ablation:
    """Synthesise every missing position of the held-out subjects by every variant."""
    seed = request.seed
    setup = AblationSetup.of(request)
    last = PROTOCOLS[-1]
    rounds = [*PROTOCOLS, *(last for _ in SHARES if request.thorough)]
    progress.started(sum(setup.missing(protocol) for protocol in rounds))
    filled = {
        p: setup.filled_slices(p, setup.retriever, progress.advance, setup.variants)
        for p in PROTOCOLS
    }
    gaps_mm = {p: setup.gap_mm(p) for p in PROTOCOLS}
    ways, brain = (
        {p: _compared(found, setup, seed, region) for p, found in filled.items()}
        for region in ("", "brain_")
    )
    brain = {protocol: found for protocol, found in brain.items() if found}
    sizes = [_at_size(setup, 1.0, len(setup.base.index.subjects), filled[last])]
    if request.thorough:
        sizes += [_smaller(setup, share, progress.advance) for share in SHARES[1:]]
    return {
        "format": 1,
        "bundle": setup.network.facts,
        "knowledge_base": setup.base.digest,
        "data": request.data_name,
        "subjects": list(setup.names),
        "seed": seed,
        "positions": {p: len(found) for p, found in filled.items()},
        "most": request.most,
        "gaps_mm": gaps_mm,
        "retrieved": {p: _accepted(found, setup.tau) for p, found in filled.items()},
        "ways": ways,
        "brain": brain,
        "percents": [
            {
                "percent": record.percent,
                "tau": record.tau,
                "accepted": _accepted(filled[last], record.tau),
                "ssim": _mean(filled[last], "full", record.tau),
            }
            for record in setup.base.index.tau
        ],
        "sizes": sizes,
        "similarity_error": _similarity_error(filled[last]),
        "points": _points(filled[last]),
        "lesions": _lesions(setup, last, seed, progress.advance) if request.thorough else None,
        "verdict": conclusion(brain, gaps_mm) + verdict(ways),
    }


def conclusion(
    brain: Mapping[str, Mapping[str, VariantComparison]], gaps_mm: Mapping[str, float]
) -> str:
    """Say at which gaps guidance gains over SLERP and over linear interpolation in the brain."""
    if not brain:
        return "No mask of the brain: what guidance gains inside it is not known. "
    gains = [
        protocol
        for protocol, found in brain.items()
        if all(found[other]["gain"]["ci95"][0] > 0 for other in RIVALS)
    ]
    if not gains:
        gaps = ", ".join(f"{gaps_mm[protocol]:g}" for protocol in brain)
        start = f"Inside the brain guidance gains nothing at gaps of {gaps} mm: it does not exceed"
    else:
        gaps = ", ".join(f"{gaps_mm[protocol]:g}" for protocol in gains)
        start = f"Inside the brain guidance gains at gaps of {gaps} mm, and at no other: it exceeds"
    return (
        f"{start} both SLERP and linear interpolation. In the brain, {verdict(brain)} In the head, "
    )


def verdict(ways: Mapping[str, Mapping[str, VariantComparison]]) -> str:
    """Compare the recipe with SLERP and linear interpolation, a sentence for each protocol."""
    sentences = []
    for protocol, found in ways.items():
        for other in RIVALS:
            low, high = found[other]["gain"]["ci95"]
            word = "exceeds" if low > 0 else "is below" if high < 0 else "equals"
            gain = found[other]["gain"]["mean"]
            sentences.append(f"{protocol}: full {word} {other} by {gain:+.4f} SSIM")
    return "; ".join(sentences) + "."


def _registering(recipe: Recipe) -> Recipe:
    """Return the same recipe, registering its exemplars."""
    changed = recipe.retrieval.model_copy(update={"registration": "similarity"})
    return recipe.model_copy(update={"retrieval": changed})


def _compared(
    found: Sequence[FilledSlice], setup: AblationSetup, seed: int, region: str
) -> dict[str, VariantComparison]:
    """Compare the variants; `region` is the prefix of the scores of `FilledSlice`."""
    tau, ssim_name, mae_name = setup.tau, f"{region}ssim", f"{region}mae"
    full = _by_subject(found, "full", tau, ssim_name)
    if not full:
        return {}
    answer: dict[str, VariantComparison] = {}
    for variant in setup.variants:
        ssim = _by_subject(found, variant, tau, ssim_name)
        answer[variant] = {
            "ssim": summarise(ssim, seed),
            "mae": summarise(_by_subject(found, variant, tau, mae_name), seed),
            "gain": summarise({name: full[name] - ssim[name] for name in ssim}, seed),
        }
    return answer


def _by_subject(
    found: Sequence[FilledSlice], variant: str, tau: float, score: str
) -> dict[str, float]:
    """Mean of a score over the positions of each subject that have it."""
    values: dict[str, list[float]] = {}
    for filling in found:
        scores = getattr(filling, score)
        if scores:
            values.setdefault(filling.subject, []).append(scores[filling.by(variant, tau)])
    return {name: float(np.mean(each)) for name, each in values.items()}


def _mean(found: Sequence[FilledSlice], variant: str, tau: float) -> float:
    return float(np.mean(list(_by_subject(found, variant, tau, "ssim").values())))


def _accepted(found: Sequence[FilledSlice], tau: float) -> float:
    """Share of the missing positions that an exemplar guides."""
    return float(np.mean([filling.by("full", tau) == "retrieved" for filling in found]))


def _at_size(
    setup: AblationSetup, share: float, subjects: int, found: Sequence[FilledSlice]
) -> SizeResult:
    apart = [abs(f.guide.position_difference_mm or 0.0) for f in found if f.guide.exemplar]
    return {
        "share": share,
        "people": subjects,
        "accepted": _accepted(found, setup.tau),
        "position_error_mm": float(np.median(apart)) if apart else float("nan"),
        "ssim": _mean(found, "full", setup.tau),
    }


def _smaller(setup: AblationSetup, share: float, advance: Callable[[], None]) -> SizeResult:
    """Leave whole subjects out of the knowledge base; a smaller base is part of a larger one."""
    subjects = np.array(sorted(setup.base.index.subjects))
    order = np.random.default_rng(0).permutation(len(subjects))
    kept = subjects[order[: max(1, round(share * len(subjects)))]]
    rows = np.isin(setup.base.subject.astype(str), kept)
    base = replace(
        setup.base,
        embeddings=setup.base.embeddings[rows],
        position_mm=setup.base.position_mm[rows],
        subject=setup.base.subject[rows],
        ct=setup.base.ct[rows],
        cells=None,
    )
    retriever = replace(setup.retriever, exemplars=FaissExemplars(base, _ANY))
    found = setup.filled_slices(PROTOCOLS[-1], retriever, advance, ("full",))
    return _at_size(setup, share, len(kept), found)


def _points(found: Sequence[FilledSlice]) -> list[list[float]]:
    """Similarity of the best exemplar, and the error of what it guides."""
    return [
        [round(float(f.guide.similarity or 0.0), 4), round(f.mae["retrieved"], 5)]
        for f in found
        if f.guide.kind == "retrieved"
    ]


def _similarity_error(found: Sequence[FilledSlice]) -> dict[str, float]:
    """Rank correlation of similarity with error, and with what guidance gains over the SLERP."""
    guided = [f for f in found if f.guide.kind == "retrieved"]
    if len(guided) < 3:
        return {}
    similarity = [f.guide.similarity for f in guided]
    error = stats.spearmanr(similarity, [f.mae["retrieved"] for f in guided]).statistic
    gain = stats.spearmanr(
        similarity, [f.ssim["retrieved"] - f.ssim["slerp"] for f in guided]
    ).statistic
    return {"spearman_error": float(error), "spearman_gain": float(gain)}


def _lesions(
    setup: AblationSetup, protocol: str, seed: int, advance: Callable[[], None]
) -> LesionResult:
    planted: list[PlantedLesion] = []
    for name in setup.names:
        case = setup.case(name, protocol)
        (placement,) = placements(case.head, case.subject.pixel_mm, setup.network.recipe)
        slices = source_slices(case, "ct", setup.network.recipe, placement)
        guides = setup.retriever.guides(case, placement)
        positions = [
            (conditioning_at(slices, float(case.targets_mm[k])), guides[k])
            for k in FillRequest(most=setup.most).rows(case)
        ]
        reached = [p for p in positions if (p[1].similarity or _ANY) >= setup.tau]
        planted += plant(reached, setup.sampler, seed)
        for _ in positions:
            advance()
    leaked = sum(each.leaked for each in planted)
    visible = [each for each in planted if each.visible]
    erased = sum(each.erased for each in visible)
    return {
        "planted": len(planted),
        "leaked": leaked / len(planted) if planted else float("nan"),
        "leaked_ci95": exact_interval(leaked, len(planted)),
        "leak_largest": max((each.leak for each in planted), default=float("nan")),
        "drawn": len(visible),
        "erased": erased / len(visible) if visible else float("nan"),
        "erased_ci95": exact_interval(erased, len(visible)),
        "kept_median": float(np.median([e.guided / e.unguided for e in visible]))
        if visible
        else float("nan"),
    }
