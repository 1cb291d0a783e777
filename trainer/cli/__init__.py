"""`rebrain-train`: from data to a signed bundle and reports on it.

One module for each phase; heavy imports stand inside the commands, so that `--help` answers at
once.

    0 done    1 failed, or some subjects refused    2 usage    3 all subjects refused, or no bundle
"""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from rebrain_node.errors import RebrainError
from trainer.cli import (
    calibration,
    comparison,
    data,
    evaluation,
    make,
    release,
    retrieval,
    training,
)

#: what the extra `train` of the package installs
_PACKAGES_OF_TRAINING = frozenset({"torch", "SimpleITK", "onnx", "onnxscript", "matplotlib"})
#: old names, accepted for one release
_OLD_COMMANDS = {
    "head": "tissue-maps",
    "bridge": "train-bridge",
    "objectives": "compare-objectives",
    "encoder": "train-encoder",
    "control": "train-control",
    "guide": "add-retrieval",
    "domain": "fit-ood",
    "gates": "input-checks",
    "domain-report": "ood-report",
}
#: names of layouts of `prepare`
_OLD_LAYOUTS = {"pairs": "nifti"}
_OLD_OPTIONS = {
    "--people": "--subjects",
    "--kept": "--cache",
    "--draws": "--series",
    "--beside": "--other-report",
}
_OLD_REPORTS = {
    "scores": "evaluate", "ablation": "guidance-report", "retrieval": "retrieval-report",
}  # fmt: skip


class _Commands(TyperGroup):
    """The commands, and their old names with a notice on standard error."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        current, notices = renamed(args)
        if notices:
            sys.stderr.write(
                f"rebrain-train: deprecated, removed in the next release: {', '.join(notices)}\n"
            )
        return super().resolve_command(ctx, current)


def renamed(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a command line with current names, and each old name with what replaces it."""
    name, *words = arguments
    current, notices = [_OLD_COMMANDS.get(name, name)], []
    if current[0] != name:
        notices.append(f"{name} (now {current[0]})")
    while words:
        option, equals, value = words.pop(0).partition("=")
        if name == "evaluate" and option == "--report":
            report = value if equals else "".join(words[:1])
            if report in _OLD_REPORTS:
                words = words if equals else words[1:]
                current[0] = _OLD_REPORTS[report]
                notices.append(f"--report {report} (now the command {current[0]})")
                continue
        if name == "prepare" and len(current) == 1 and option in _OLD_LAYOUTS:
            notices.append(f"{option} (now {_OLD_LAYOUTS[option]})")
            option = _OLD_LAYOUTS[option]
        if option in _OLD_OPTIONS:
            notices.append(f"{option} (now {_OLD_OPTIONS[option]})")
        current.append(_OLD_OPTIONS.get(option, option) + equals + value)
    return current, notices


program = typer.Typer(
    name="rebrain-train",
    cls=_Commands,
    help="Trains, evaluates and releases the model bundles of rebrain-node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
program.command()(make.make)
program.command()(data.prepare)
program.command()(data.tissue_maps)
program.command()(data.simulate)
program.command()(training.train_bridge)
program.command()(training.compare_objectives)
program.command()(comparison.table1)
program.command()(evaluation.score)
program.command()(release.release)
program.command()(release.release_prepared)
program.command()(data.head_template)
program.command()(training.train_encoder)
program.add_typer(retrieval.knowledge_base, name="knowledge-base")
program.command()(training.train_control)
program.command()(release.add_retrieval)
program.command()(calibration.calibrate)
program.command()(calibration.fit_ood)
program.command()(release.key)
program.command()(release.sign)
program.command()(evaluation.evaluate)
program.command()(evaluation.acceptance)
program.command()(evaluation.register_pairs)
program.command()(evaluation.guidance_report)
program.command()(evaluation.retrieval_report)
program.command()(calibration.ood_report)
program.command()(calibration.input_checks)
program.command()(data.demo_head)


def app(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and end the process with its exit code."""
    try:
        program(arguments)
    except (RebrainError, OSError) as error:
        _end(" ".join(str(error).split()))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES_OF_TRAINING:
            raise
        _end(f"{package} is not installed: pip install 'rebrain-node[train]'")
    sys.exit(0)


def _end(line: str) -> NoReturn:
    """Say why the program ends, on one line, and end it."""
    sys.stderr.write(f"rebrain-train: {line}\n")
    sys.exit(1)
