"""The files of a bundle without a network: valid for everything except an engine."""

from rebrain_node.model.card import Card, TrainingFacts
from rebrain_node.model.recipe import Grid, Output, Recipe, Retrieval, Window


def plain_contents() -> dict[str, bytes]:
    """Every required file of a bundle."""
    recipe = Recipe(
        objective="directional",
        grid=Grid(rows=32, columns=32, pixel_mm=0.9),
        brain_window=Window(low_hu=0, high_hu=80),
        wide_window=Window(low_hu=-200, high_hu=1300),
        spacing_mm=1.0,
        sampling=(1.0,),
        eta=0.0,
        output=Output(black=0, white=4095),
    )
    card = Card(
        name="tiny",
        version="0.1",
        summary="A bundle without a network.",
        intended_use="Tests.",
        data=(),
        training=TrainingFacts(
            objective="directional",
            steps=0,
            batch=1,
            hours=0,
            hardware="none",
            parameters=1,
            pool_digest="none",
            pool_samples=1,
            seed=0,
        ),
        scores=(),
        choices=(),
        limits=("It has no network.",),
    )
    return {
        "recipe.json": recipe.to_json().encode(),
        "card.json": card.model_dump_json().encode(),
        "CARD.md": card.to_markdown().encode(),
        "weights.safetensors": b"weights",
        "network.onnx": b"network",
        "golden.safetensors": b"golden",
    }


def retrieving_contents(**files: bytes | None) -> dict[str, bytes]:
    """Contents with a knowledge base, and a recipe that retrieves; `files` override."""
    contents = plain_contents()
    recipe = Recipe.model_validate_json(contents["recipe.json"])
    retrieving = recipe.model_copy(update={"retrieval": Retrieval(method="exemplar")})
    more: dict[str, bytes | None] = {
        "recipe.json": retrieving.to_json().encode(),
        "encoder.onnx": b"encoder",
        "control.onnx": b"control",
        "exemplars/index.json": b"{}",
        "exemplars/ct.npy": b"slices",
    }
    return {n: c for n, c in (contents | more | files).items() if c is not None}
