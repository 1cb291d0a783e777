"""A bundle with its known domain: a new folder, every other byte as it was."""

from collections.abc import Iterable
from pathlib import Path

from rebrain_node.model.bundle import ModelBundle, load_bundle, write_bundle
from rebrain_node.model.ood import OodModel
from trainer.ood.fit import InDistributionSeries
from trainer.ood.series import EvaluatedSeries


def sounds(series: Iterable[EvaluatedSeries]) -> list[InDistributionSeries]:
    """Choose the series that a domain is fitted to: those that no rule refuses."""
    return [
        InDistributionSeries(seen.person, seen.look)
        for seen in series
        if seen.look is not None and not seen.refused
    ]


def with_domain(bundle: ModelBundle, known: OodModel, out: Path) -> ModelBundle:
    """Write a bundle's files and its known domain into a new folder.

    Raises
    ------
    FileExistsError
        `out` exists: a bundle is never changed in place.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a bundle is written into a new folder")
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents["domain.json"] = known.to_json().encode()
    write_bundle(out, bundle.name, bundle.version, contents)
    return load_bundle(out)
