"""The networks of an evaluation: a bundle through the node's engine, or a run through torch."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError  # the name of a refusal; nothing is unpickled here
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from rebrain_node.engine.choose import open_engine
from rebrain_node.errors import RebrainError
from rebrain_node.model import unet
from rebrain_node.model.bundle import ModelBundle, load_bundle
from rebrain_node.model.recipe import Image, Recipe
from trainer.data.dataset import digest_of
from trainer.evaluate.evaluation import BundleFacts
from trainer.evaluate.guiding import Guiding
from trainer.train.bridge import open_run

DEMO = "demo"
CHECKPOINT = "checkpoint.pt"


class GuidedEvaluate(Protocol):
    """One evaluation, guided or not: as of port `Engine`."""

    def __call__(self, x: Image, s: NDArray[Any], guide: Image | None = None) -> Image:
        """Evaluate f, (1, 1, rows, columns)."""


class NetworkRefused(RebrainError):
    """A network cannot be evaluated; the message names its folder."""


@dataclass(frozen=True)
class Network:
    """One network ready to be evaluated, and how its recipe says to use it."""

    recipe: Recipe
    evaluate: GuidedEvaluate
    facts: BundleFacts
    guiding: Guiding | None = None  #: None where missing positions take no exemplar


def open_network(where: str) -> Network:
    """Open `demo`, the folder of a bundle, or the folder of a training run.

    Raises
    ------
    NetworkRefused
        The folder is neither, or its checkpoint cannot be used.
    BundleRefused
        The bundle is damaged, or the engine does not reproduce its golden output.
    EngineFailed
        The engine cannot start.
    """
    if (Path(where) / CHECKPOINT).is_file():
        return _of_run(Path(where))
    return network_of_bundle(bundle_at(where))


def bundle_at(where: str) -> ModelBundle:
    """Load `demo`, or the folder of a bundle.

    Raises
    ------
    NetworkRefused
        There is no such folder.
    BundleRefused
        The bundle is damaged.
    """
    if where == DEMO:
        with resources.as_file(resources.files("rebrain_node") / "bundles" / DEMO) as shipped:
            return load_bundle(shipped)
    folder = Path(where)
    if not folder.is_dir():
        raise NetworkRefused(f"{folder}: no such folder; expected a bundle, a run or {DEMO!r}")
    return load_bundle(folder)


def network_of_bundle(bundle: ModelBundle) -> Network:
    """Open a bundle by the node's engine, and what it retrieves with.

    Raises
    ------
    EngineFailed
        The engine does not reproduce the golden output of the bundle.
    KnowledgeBaseRefused
        Its knowledge base is not fit to be searched.
    """
    engine = open_engine("openvino", bundle)
    facts: BundleFacts = {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "engine": engine.identity,
    }
    return Network(bundle.recipe, engine.evaluate, facts, Guiding.of(bundle))


def _of_run(folder: Path) -> Network:
    """Read the running mean of the weights; tensors and numbers only.

    Raises
    ------
    NetworkRefused
        The run is damaged, or from before it wrote down its recipe.
    """
    try:
        recipe, network = open_run(folder)
    except (RuntimeError, KeyError, EOFError, OSError, ValueError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise NetworkRefused(f"{folder}: the run cannot be used: {reason}") from error
    facts: BundleFacts = {
        "name": folder.resolve().name,
        "version": "training run",
        "digest": digest_of(folder / CHECKPOINT),
        "engine": f"torch {torch.__version__} fp32",
    }
    return Network(recipe, of_torch(network), facts)


def of_torch(network: unet.Network) -> GuidedEvaluate:
    """Return one evaluation of the network in float32, numpy in and out; it takes no guide."""
    network.eval()

    def evaluate(x: Image, s: NDArray[Any], guide: Image | None = None) -> Image:  # noqa: ARG001
        with torch.inference_mode():
            flow = network(torch.from_numpy(x), torch.from_numpy(s))
        answer: Image = flow.numpy()
        return answer

    return evaluate
