"""Series of prepared CT, evaluated for the OOD model as a node would receive them."""

from collections.abc import Iterator

from trainer.data.dataset import PreparedData, Subject
from trainer.data.placing import source_volume_of
from trainer.data.protocols import FACTORS, Sparsity, thinned
from trainer.data.series import spacing_mm
from trainer.ood.fit import OodFitError
from trainer.ood.series import IN_DISTRIBUTION, EvaluatedSeries, SeriesEvaluator

#: distances of slices that a node receives, mm
_THINNEST_MM, _THICKEST_MM = 2.0, 8.0


def check_fit(data: PreparedData) -> None:
    """Refuse data that the OOD model cannot describe.

    Raises
    ------
    OodFitError
        The source is no CT in HU, or has no positions in millimetres.
    """
    if data.source_kind != "ct" or not data.volumetric:
        raise OodFitError(
            f"the source of {data.origin} is {data.source_kind!r}: the OOD model describes volumes "
            "of CT in HU, which a node receives"
        )


def protocols_received(subject: Subject) -> tuple[Sparsity, ...]:
    """Return the protocols under which a subject is like a series that a node receives."""
    step = spacing_mm(subject)
    thinner = (
        protocol
        for factor in FACTORS
        for protocol in (Sparsity("decimate", factor), Sparsity("thick", factor))
        if _THINNEST_MM <= factor * step <= _THICKEST_MM and len(subject.positions_mm) >= 2 * factor
    )
    as_it_is = (Sparsity("none"),) if step >= _THINNEST_MM else ()
    return (*as_it_is, *thinner)


def received_series(
    data: PreparedData, name: str, evaluator: SeriesEvaluator
) -> Iterator[EvaluatedSeries]:
    """Yield the evaluated series of a subject.

    Raises
    ------
    OodFitError
        The pixel size is not known.
    """
    subject = data.subject(name)
    if subject.pixel_mm is None:
        raise OodFitError(f"{name}: the pixel size is not known")
    for number, protocol in enumerate(protocols_received(subject)):
        case = thinned(subject, protocol)
        volume = source_volume_of(case.source, case.positions_mm, subject.pixel_mm)
        yield evaluator.evaluate(volume, (name, IN_DISTRIBUTION, number))
