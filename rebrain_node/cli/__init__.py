"""The command line: arguments to calls, errors to exit codes.

Nothing heavy is imported here: each command imports what it needs when it is called, so that
`--help` answers at once. This is one of the three places where errors are caught.

    0 done    1 failed    2 usage or settings    3 everything refused    4 bundle refused
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from rebrain_node import __version__
from rebrain_node.cli import (
    acceptance,  # noqa: F401 - adds its command to `audit`
    audit,
    audit_proof,  # noqa: F401 - adds its commands to `audit`
    audit_records,  # noqa: F401 - adds its commands to `audit`
    backup,
    benchmark,
    bundle,
    conformance,
    demo,
    doctor,
    folder,
    node,
    notify,
    outbox,
    queue,
    recall,
    status,
    stop,
    storage,
    verify,
)
from rebrain_node.errors import BundleError, RebrainError, SettingsError, os_error_words

program = typer.Typer(
    name="rebrain-node",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rebrain-node {__version__}")
        raise typer.Exit


@program.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """DICOM node that derives a synthetic T1-like MR series from a thick-slice head CT.

    Research software, not for diagnosis.
    """


program.command("demo")(demo.demo)
program.command("process")(folder.process)
program.command("serve")(node.serve)
program.command("receiver", hidden=True)(node.receiver)
program.command("worker", hidden=True)(node.worker)
program.command("delivery", hidden=True)(node.delivery)
program.command("verify")(verify.verify)
program.command("send")(node.send)
program.command("doctor")(doctor.doctor)
program.command("conformance")(conformance.conformance)
program.command("benchmark")(benchmark.benchmark)
program.command("backup")(backup.backup)
program.command("restore")(backup.restore)
program.command("status")(status.status)
program.command("recall")(recall.recall)
program.add_typer(queue.queue, name="queue")
program.add_typer(outbox.outbox, name="outbox")
program.add_typer(notify.notify, name="notify")
program.add_typer(stop.stop, name="stop")
program.add_typer(storage.storage, name="storage")
program.add_typer(audit.audit, name="audit")
program.add_typer(bundle.bundle, name="bundle")
program.add_typer(node.config, name="config")
program.add_typer(node.peers, name="peers")


def app(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and end the process with its exit code.

    The matrices outside of the networks are small. Without a limit the threads of OpenBLAS wait for
    them busily, which takes a third of the processor time of a study from the engine's threads.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    try:
        program(arguments, prog_name="rebrain-node")
    except SettingsError as error:
        _exit_with(error, 2)
    except BundleError as error:
        _exit_with(error, 4)
    except RebrainError as error:
        _exit_with(error, 1)
    except OSError as error:
        _exit_with(os_error_words(error), 1)
    sys.exit(0)


def _exit_with(error: Exception | str, code: int) -> NoReturn:
    line = " ".join(str(error).split())
    sys.stderr.write(f"rebrain-node: {line}\n")
    sys.exit(code)
