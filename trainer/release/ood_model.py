"""The OOD model of a bundle, fitted to a prepared data set."""

from collections.abc import Callable, Iterator

from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.ood import OodModel
from trainer.data.dataset import PreparedData
from trainer.ood.fit import fit
from trainer.ood.paired_series import check_fit, received_series
from trainer.ood.series import EvaluatedSeries, SeriesEvaluator, in_distribution


def evaluator_of(bundle: ModelBundle) -> SeriesEvaluator:
    """Return what evaluates series by the shipped limits and the recipe of a bundle."""
    return SeriesEvaluator(limits=shipped_limits(), recipe=bundle.recipe)


def embedding_of(bundle: ModelBundle) -> Callable[[EvaluatedSeries], EvaluatedSeries]:
    """Return the function that adds embeddings; without an encoder it changes nothing."""
    if not bundle.holds("encoder.onnx"):
        return lambda series: series
    encoder = encoder_of_graph(bundle.read("encoder.onnx"), threads=1)
    return lambda series: series.embedded(encoder)


def ood_model_of(bundle: ModelBundle, series: Iterator[EvaluatedSeries]) -> OodModel:
    """Fit an OOD model to the series that no input check refuses; raises `OodFitError`."""
    encoder = bundle.manifest.files.get("encoder.onnx")
    sha256 = None if encoder is None else encoder.sha256
    return fit(in_distribution(series), sha256, bundle.recipe.grid.pixel_mm)


def prepared_series(
    bundle: ModelBundle, data: PreparedData, advance: Callable[[], None]
) -> Iterator[EvaluatedSeries]:
    """Yield the evaluated series of the training subjects; `advance` is called after each subject.

    Raises
    ------
    OodFitError
        The data are not of CT in HU.
    """
    check_fit(data)
    evaluator, embedded = evaluator_of(bundle), embedding_of(bundle)
    for name in data.split["train"]:
        yield from map(embedded, received_series(data, name, evaluator))
        advance()
