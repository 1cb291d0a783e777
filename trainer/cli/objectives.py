"""Which objective draws better images at equal iterations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, Config, Samples, bar_of


def objectives(
    config: Config,
    pool: Samples,
    prepared: Annotated[Path, typer.Option(help="Prepared data set, e.g. FLAIR to T1.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the page.")],
    as_json: AsJson = False,
) -> None:
    """Train every objective and seed, and compare images.

    On simulated CT and on prepared data.

    A run that has its scores is not repeated: interrupted, the experiment goes on.
    """
    from trainer.config import TrialConfig
    from trainer.evaluate.objectives import (
        TrialData,
        TrialFolder,
        TrialResult,
        between_sequences,
        run_trial,
        simulated,
        write_results,
    )

    settings = TrialConfig.load(config)
    trial, steps = settings.trial, settings.train.steps
    kinds_of_data: tuple[Callable[[], TrialData], ...] = (
        lambda: simulated(pool, settings.recipe, trial),
        lambda: between_sequences(prepared, settings.recipe, trial),
    )
    runs: list[TrialResult] = []
    total = len(kinds_of_data) * len(trial.seeds) * len(trial.objectives) * steps
    with bar_of("steps", total) as (bar, task):
        for make in kinds_of_data:
            trial_data = make()
            for seed in trial.seeds:
                for objective in trial.objectives:
                    begun = len(runs) * steps
                    bar.update(task, description=f"{trial_data.name}, {objective}, seed {seed}")
                    place = TrialFolder(out, objective, seed)

                    def advance(step: int, begun: int = begun) -> None:
                        bar.update(task, completed=begun + step)

                    runs.append(run_trial(settings, trial_data, place, advance))
                    advance(steps)
    write_results(settings, runs, out)
    found = (out / "objectives.json").read_text()
    typer.echo(json.dumps(json.loads(found)) if as_json else str(out / "objectives.md"))
