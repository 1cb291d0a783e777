"""Verifies bundle and engine in a process that ends: an idle worker then holds no engine.

The process gets the settings as JSON on its standard input and writes its verdict as JSON to its
standard output. It opens every network as a worker does, golden outputs included.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Self

from rebrain_node.app.compose import configure, open_bundle, open_model, refuse_rollback
from rebrain_node.domain.audit import Event
from rebrain_node.errors import BundleError, EngineError, RebrainError
from rebrain_node.settings import Settings

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.pipeline import Configuration

_COMMAND: Final = (sys.executable, "-m", "rebrain_node.app.model_check")


@dataclass(frozen=True)
class ModelCheck:
    """A verification that goes on while its caller does something else."""

    process: subprocess.Popen[bytes]

    @classmethod
    def begin(cls, settings: Settings) -> Self:
        """Start the process."""
        process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own program
        assert process.stdin is not None  # noqa: S101 - asked for a pipe above
        process.stdin.write(settings.model_dump_json().encode())
        process.stdin.close()
        return cls(process)

    def verdict(self, bundle_digest: str) -> str:
        """Wait for the end of the process; the identity of the engine.

        Raises
        ------
        BundleError
            The bundle is not fit, deviates on this machine, or is not the one of that digest.
        EngineError
            The engine cannot start, or the process ended without a verdict.
        """
        assert self.process.stdout is not None  # noqa: S101 - asked for a pipe above
        with self.process.stdout as stream:
            content = stream.read()
        code = self.process.wait()
        if not content:
            raise EngineError(
                f"the check of the engine ended with exit code {code} and without a verdict; see "
                "the node's log, and check memory and installation"
            )
        verdict = json.loads(content)
        if verdict["error"] is not None:
            raise (BundleError if verdict["bundle_refused"] else EngineError)(verdict["error"])
        if verdict["digest"] != bundle_digest:
            raise BundleError(
                f"the bundle was replaced while it was verified: {bundle_digest[:16]} and "
                f"{verdict['digest'][:16]}; start the node again"
            )
        return str(verdict["engine"])

    def end(self) -> None:
        """End the process, whether it has a verdict or not."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def activate_bundle(
    settings: Settings, state: State, check: ModelCheck | None = None
) -> tuple[Configuration, str]:
    """Verify the bundle and record it as active; older bundles are refused from then on.

    Returns what a result depends on, and the identity of the engine, which is not loaded here.

    Parameters
    ----------
    check
        The verification of the model in another process, if it was begun before.

    Raises
    ------
    BundleError
        It is not what was released, or is older than the last active one; the audit log holds
        the reason.
    EngineError
        The engine cannot start; the audit log holds the reason.
    """
    check = check or ModelCheck.begin(settings)
    try:
        verified = open_bundle(settings)
        configuration = configure(settings, verified.bundle)
        refuse_rollback(settings, state, verified.bundle)
        engine = check.verdict(verified.bundle.digest)
    except BundleError as error:
        state.audit.record(Event.BUNDLE_REFUSED, "bundle", {"reason": str(error)})
        raise
    except EngineError as error:
        state.audit.record(Event.SELF_TEST_FAILED, settings.model.engine, {"reason": str(error)})
        raise
    finally:
        check.end()
    bundle, signer = verified.bundle, verified.signer
    details = {
        "name": bundle.name,
        "version": bundle.version,
        "signed_by": None if signer is None else asdict(signer),
    }
    state.audit.record(Event.BUNDLE_VERIFIED, bundle.digest, details)
    return configuration, engine


def main() -> None:
    """Verify what the settings on standard input name, and write the verdict."""
    settings = Settings(**json.load(sys.stdin))
    verdict: dict[str, str | bool | None] = {
        "error": None,
        "bundle_refused": False,
        "digest": None,
        "engine": None,
    }
    try:
        bundle = open_bundle(settings).bundle
        model = open_model(settings, bundle, settings.workers)
    except RebrainError as error:
        verdict |= {"error": str(error), "bundle_refused": isinstance(error, BundleError)}
    else:
        verdict |= {"digest": bundle.digest, "engine": model.engine.identity}
    json.dump(verdict, sys.stdout)


if __name__ == "__main__":
    main()
