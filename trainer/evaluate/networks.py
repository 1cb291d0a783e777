"""The networks of an evaluation: a bundle through the node's engine, or a run through torch.

A bundle that retrieves also brings its encoder and knowledge base, used by the node's own steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError  # the name of a refusal; nothing is unpickled here
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from rebrain_node.domain.volume import Guide
from rebrain_node.engine.open import open_encoder, open_engine
from rebrain_node.errors import RebrainError
from rebrain_node.model import unet
from rebrain_node.model.bundle import MANIFEST, ModelBundle, load_bundle
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.ports import Encoder, Exemplars
from rebrain_node.retrieval.open import open_exemplars
from rebrain_node.steps.locate import locate
from rebrain_node.steps.retrieve import embed, retrieve
from trainer.data.dataset import digest_of
from trainer.data.placing import Placement
from trainer.data.protocols import Case
from trainer.data.series import prepared_volume_of
from trainer.evaluate.results import BundleFacts
from trainer.train.bridge import open_run
from trainer.train.loop import CHECKPOINT


@dataclass(frozen=True)
class Retriever:
    """An opened encoder and knowledge base."""

    encoder: Encoder
    exemplars: Exemplars
    recipe: Recipe

    @classmethod
    def of(cls, bundle: ModelBundle) -> "Retriever | None":
        """Open those of a bundle; None where its recipe retrieves none."""
        if not bundle.recipe.retrieves:
            return None
        encoder = open_encoder("openvino", bundle)
        return cls(encoder, open_exemplars(bundle, encoder), bundle.recipe)

    def guides(self, case: Case, placement: Placement) -> tuple[Guide, ...]:
        """Retrieve the guide of every position synthesised, as the node would.

        The node leaves no subject out: the subject must not be in the knowledge base.

        Parameters
        ----------
        case : Case
            CT in HU, positions in mm.
        """
        (found,) = self.guides_at(case, placement, range(len(case.targets_mm)), self.recipe)
        return tuple(found.values())

    def guides_at(
        self, case: Case, placement: Placement, rows: Sequence[int], *recipes: Recipe
    ) -> list[dict[int, Guide]]:
        """Retrieve as `guides` at some positions, by recipes that differ in retrieval alone."""
        prepared = prepared_volume_of(case, "ct", placement, self.recipe)
        prepared = replace(prepared, targets=tuple(prepared.targets[row] for row in rows))
        frame = locate(prepared, load_head_template())
        embeddings = embed(prepared, self.encoder, self.recipe)
        found = (retrieve(prepared, each, frame, embeddings, self.exemplars) for each in recipes)
        return [dict(zip(rows, guides, strict=True)) for guides in found]


DEMO = "demo"


class GuidedEvaluation(Protocol):
    """One evaluation, guided or not: as of port `Engine`."""

    def __call__(self, x: Image, s: NDArray[Any], guide: Image | None = None) -> Image:
        """Evaluate f, (1, 1, rows, columns)."""


class NetworkError(RebrainError):
    """A network cannot be evaluated; the message names its folder."""


@dataclass(frozen=True)
class Network:
    """One network ready to be evaluated, and how its recipe says to use it."""

    recipe: Recipe
    evaluate: GuidedEvaluation
    facts: BundleFacts
    retriever: Retriever | None = None  #: None where missing positions take no exemplar


def open_network(where: str) -> Network:
    """Open `demo`, the folder of a bundle, or the folder of a training run.

    Raises
    ------
    NetworkError
        The folder is neither, or its checkpoint cannot be used.
    BundleError
        The bundle is damaged, or the engine does not reproduce its golden output.
    EngineError
        The engine cannot start.
    """
    if (Path(where) / CHECKPOINT).is_file():
        return _of_run(Path(where))
    return network_of_bundle(bundle_at(where))


def bundle_at(where: str) -> ModelBundle:
    """Load `demo`, or the folder of a bundle.

    Raises
    ------
    NetworkError
        There is no such folder, or it is neither bundle nor run.
    BundleError
        The bundle is damaged.
    """
    if where == DEMO:
        with resources.as_file(resources.files("rebrain_node") / "bundles" / DEMO) as shipped:
            return load_bundle(shipped)
    folder = Path(where)
    if not folder.is_dir():
        raise NetworkError(f"{folder}: no such folder; expected a bundle, a run or {DEMO!r}")
    if not (folder / MANIFEST).is_file():
        near = [p for name in (MANIFEST, CHECKPOINT) for p in sorted(folder.glob(f"*/{name}"))]
        remedy = f"; {near[0].parent} is one: give that" if near else ""
        raise NetworkError(
            f"{folder} holds neither {MANIFEST} of a bundle nor {CHECKPOINT} of a run{remedy}"
        )
    return load_bundle(folder)


def network_of_bundle(bundle: ModelBundle) -> Network:
    """Open a bundle by the node's engine, and what it retrieves with.

    Raises
    ------
    EngineError
        The engine does not reproduce the golden output of the bundle.
    KnowledgeBaseError
        Its knowledge base is not fit to be searched.
    """
    engine = open_engine("openvino", bundle)
    facts: BundleFacts = {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "engine": engine.identity,
    }
    return Network(bundle.recipe, engine.evaluate, facts, Retriever.of(bundle))


def _of_run(folder: Path) -> Network:
    """Read the running mean of the weights; tensors and numbers only.

    Raises
    ------
    NetworkError
        The run is damaged, or from before it wrote down its recipe.
    """
    try:
        recipe, network = open_run(folder)
    except (RuntimeError, KeyError, EOFError, OSError, ValueError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{folder}: the run cannot be used: {reason}") from error
    facts: BundleFacts = {
        "name": folder.resolve().name,
        "version": "training run",
        "digest": digest_of(folder / CHECKPOINT),
        "engine": f"torch {torch.__version__} fp32",
    }
    return Network(recipe, of_torch(network), facts)


def of_torch(network: unet.Network) -> GuidedEvaluation:
    """Return one evaluation of the network in float32, numpy in and out; it takes no guide."""
    network.eval()

    def evaluate(x: Image, s: NDArray[Any], guide: Image | None = None) -> Image:  # noqa: ARG001
        with torch.inference_mode():
            flow = network(torch.from_numpy(x), torch.from_numpy(s))
        answer: Image = flow.numpy()
        return answer

    return evaluate
