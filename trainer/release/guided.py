"""From a bundle to one that retrieves: encoder, control branch and knowledge base beside it."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.recipe import Retrieval
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, contents_of, read
from trainer.release.bundle import Guidance, release
from trainer.train.control import ControlFacts, branch_of, read_facts

UNGUIDED_LIMIT = "Slices between measured ones are drawn from an interpolation, not from data."
GUIDED_LIMIT = (
    "Slices between measured ones are drawn from an interpolation and guided by a slice of another "
    "person where one is similar enough; neither is data of the patient."
)


@dataclass(frozen=True)
class GuidanceFolders:
    """Where the parts lie: a run of `encoder`, a run of `control`, a knowledge base."""

    encoder: Path
    control: Path
    exemplars: Path


def release_guided(
    bundle: ModelBundle, folders: GuidanceFolders, retrieval: Retrieval, version: str, out: Path
) -> ModelBundle:
    """Write a new bundle: `bundle` and its guidance.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ValueError
        The branch was trained beside another bundle, or not to its last step.
    KnowledgeBaseError
        The knowledge base is damaged.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a released bundle is never overwritten")
    facts = read_facts(folders.control)
    if facts.bundle != bundle.digest:
        raise ValueError(
            f"{folders.control} was trained beside the bundle {facts.bundle}, not {bundle.digest}"
        )
    base = read(folders.exemplars)
    guidance = Guidance(
        control=branch_of(folders.control),
        encoder=load((folders.encoder / "encoder.safetensors").read_bytes()),
        encoder_graph=(folders.encoder / "encoder.onnx").read_bytes(),
        exemplars=contents_of(base),
    )
    recipe = bundle.recipe.model_copy(update={"retrieval": retrieval})
    card = bundle.card.model_copy(
        update={
            "version": version,
            "choices": (*bundle.card.choices, _sentence(facts, base)),
            "limits": tuple(
                GUIDED_LIMIT if limit == UNGUIDED_LIMIT else limit for limit in bundle.card.limits
            ),
        }
    )
    return release(load(bundle.read("weights.safetensors")), recipe, card, out, guidance)


def _sentence(facts: ControlFacts, base: KnowledgeBase) -> str:
    return (
        f"Guidance: a control branch trained for {facts.steps} steps of {facts.batch} beside the "
        f"frozen network (target {facts.target}), and a knowledge base of {base.index.entries} "
        f"simulated CT slices of {len(base.index.subjects)} of the heads the network learned from."
    )
