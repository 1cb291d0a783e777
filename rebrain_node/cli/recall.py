"""`recall`: find all derived objects affected by a bundle or an exemplar."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table


def recall(
    bundle: Annotated[
        str | None, typer.Option(help="Digest of the bundle, or at least its first 16 digits.")
    ] = None,
    exemplar: Annotated[
        str | None,
        typer.Option(
            help="Keyed hash of the exemplar slice; its first 32 digits are those of the subject."
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find all derived objects affected by a bundle or exemplar.

    Lists each object with the destinations that accepted it.
    """
    from rebrain_node.app.compose import open_state
    from rebrain_node.settings import load_settings

    if (bundle is None) == (exemplar is None):
        raise typer.BadParameter("give either --bundle or --exemplar")
    with open_state(load_settings(config)) as state:
        if bundle is not None:
            recalled = state.recall.by_bundle(bundle)
        else:
            recalled = state.recall.by_exemplar(str(exemplar))
    if as_json:
        print_json({"sets": [asdict(each) for each in recalled]})
        return
    rows = [
        (
            each.source_series_uid,
            each.revision,
            one.kind,
            one.sop_instance_uid,
            ", ".join(f"{name} {state}" for name, state in one.destinations.items()),
        )
        for each in recalled
        for one in each.objects
    ]
    print_table("Objects", ("source series", "revision", "kind", "instance", "destinations"), rows)
