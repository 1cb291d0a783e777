"""The head that the node's demonstration shows."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import Data, Maps, data_of


def demo_head(
    maps: Maps,
    out: Annotated[
        Path, typer.Option(help="Folder to write head.npz, LICENSE and README.md into.")
    ],
    data: Data = None,
) -> None:
    """Make the demonstration head: simulated CT with its T1."""
    import numpy as np

    from trainer.heads import DEMONSTRATION, catalogue
    from trainer.simulate.shipped_heads import write_demo_head

    chosen = next(h for h in catalogue(data_of(data)) if h.name == DEMONSTRATION)
    with np.load(maps / f"{chosen.name}.npz") as arrays:
        size = write_demo_head(chosen, dict(arrays), out)
    typer.echo(f"{out / 'head.npz'}: {size / 1e6:.1f} MB")
