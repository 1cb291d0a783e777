"""Who may teach the network and who may not."""

from pathlib import Path

from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.recipe import Retrieval
from trainer.config import TrainConfig
from trainer.data.heads import catalogue, role_of

ROOT = Path(__file__).parents[3]


def test_the_demonstration_head_and_the_held_out_heads_never_teach() -> None:
    assert role_of("colin27") == "demonstration"
    assert {role_of(name) for name in ("sub21", "sub22", "sub23")} == {"validation"}
    assert role_of("sub01") == "train"


def test_the_catalogue_has_nineteen_heads_to_learn_from(shared_data: Path) -> None:
    heads = catalogue(shared_data)

    assert sum(head.role == "train" for head in heads) == 19
    assert all(head.t1.is_file() for head in heads)


def test_the_card_of_the_shipped_bundle_names_the_split_that_the_trainer_makes() -> None:
    card = load_bundle(ROOT / "rebrain_node" / "bundles" / "demo").card

    for use in card.data:
        if use.role != "external test":
            assert {role_of(name) for name in use.subjects} == {use.role}


def test_the_shipped_bundle_was_trained_with_the_parameters_in_the_repository() -> None:
    bundle = load_bundle(ROOT / "rebrain_node" / "bundles" / "demo")
    config = TrainConfig.load(ROOT / "conf" / "train" / "demo.toml")

    alone = bundle.recipe.model_copy(update={"retrieval": Retrieval(), "abstain": None})
    assert alone == config.recipe  # what `guide` and `calibrate` add is theirs
    assert bundle.card.training.steps == config.train.steps
    assert bundle.card.training.seed == config.train.seed
