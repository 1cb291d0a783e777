"""`rebrain-train`: from data to a bundle and a report.

One module per group of commands, registered below; heavy imports live inside the commands, so that
`--help` answers at once.

    0 done    1 failed, or some subjects refused    2 usage    3 everything refused
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from rebrain_node.errors import RebrainError
from trainer.cli import (
    calibration,
    control,
    demonstration,
    domain,
    encoder,
    evaluate,
    gates,
    knowledge_base,
    objectives,
    prepare,
    releases,
    signing,
    stages,
)

program = typer.Typer(
    name="rebrain-train",
    help="Makes ReBrain model bundles and says how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order in which a bundle is made.
program.command("prepare")(prepare.prepare)
program.command("head")(stages.head)
program.command("simulate")(stages.simulate)
program.command("bridge")(stages.bridge)
program.command("objectives")(objectives.objectives)
program.command("score")(stages.score)
program.command("release")(stages.release)
program.command("release-prepared")(releases.release_prepared)
program.command("head-template")(encoder.head_template)
program.command("encoder")(encoder.encoder)
program.add_typer(knowledge_base.knowledge_base, name="knowledge-base")
program.command("control")(control.control)
program.command("guide")(control.guide)
program.command("calibrate")(calibration.calibrate)
program.command("domain")(domain.domain)
program.command("key")(signing.key)
program.command("sign")(signing.sign)
program.command("evaluate")(evaluate.evaluate)
program.command("gates")(gates.gates)
program.command("domain-report")(domain.domain_report)
program.command("demo-head")(demonstration.demo_head)


def app(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and leave the process with its exit code."""
    try:
        program(arguments)
    except (RebrainError, OSError) as error:
        line = " ".join(str(error).split())
        sys.stderr.write(f"rebrain-train: {line}\n")
        sys.exit(1)
    sys.exit(0)
