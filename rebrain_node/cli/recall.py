"""`recall`: every object made by a model, or guided by an exemplar."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table


def recall(
    bundle: Annotated[
        str | None, typer.Option(help="Digest of a bundle, or its first 16 digits or more.")
    ] = None,
    exemplar: Annotated[
        str | None,
        typer.Option(help="Keyed hash of an exemplar slice; its first 32 digits name a person."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List what a bundle made or an exemplar guided.

    With every destination that took it.
    """
    from rebrain_node.app.compose import open_state
    from rebrain_node.settings import load_settings

    if (bundle is None) == (exemplar is None):
        raise typer.BadParameter("give either --bundle or --exemplar")
    with open_state(load_settings(config)) as state:
        if bundle is not None:
            found = state.recall.by_bundle(bundle)
        else:
            found = state.recall.by_exemplar(str(exemplar))
    if as_json:
        print_json({"sets": [asdict(each) for each in found]})
        return
    rows = [
        (
            each.source_series_uid,
            each.revision,
            one.kind,
            one.sop_instance_uid,
            ", ".join(f"{name} {state}" for name, state in one.destinations.items()),
        )
        for each in found
        for one in each.objects
    ]
    print_table("Objects", ("source series", "revision", "kind", "instance", "destinations"), rows)
