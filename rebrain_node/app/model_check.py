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

from rebrain_node.app.compose import open_bundle, open_model, refuse_rollback
from rebrain_node.domain.audit import Event
from rebrain_node.domain.release import Release
from rebrain_node.errors import BundleError, EngineError, RebrainError, SettingsError
from rebrain_node.logs import log_as_json
from rebrain_node.settings import Settings

if TYPE_CHECKING:
    from rebrain_node.app.compose import State

_COMMAND: Final = (sys.executable, "-P", "-m", "rebrain_node.app.model_check")


#: errors of the other process that are raised here as what they are; any other is an EngineError
_ERRORS: Final = {each.__name__: each for each in (BundleError, SettingsError)}


@dataclass(frozen=True, kw_only=True)
class ModelVerdict:
    """What was verified: a bundle, who released it, and the engine that reproduces it."""

    release: Release
    signed_by: dict[str, str] | None  #: name and key; None for an accepted unsigned bundle
    engine: str  #: identity
    fallback: str | None = None  #: why this engine computes, and not the one that is set


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

    def verdict(self) -> ModelVerdict:
        """Wait for the end of the process.

        Raises
        ------
        BundleError
            The bundle is not fit, or deviates on this machine.
        SettingsError
            A trusted key cannot be read.
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
        answer = json.loads(content)
        if "error" in answer:
            raise _ERRORS.get(answer["kind"], EngineError)(answer["error"])
        return ModelVerdict(**answer | {"release": Release(**answer["release"])})

    def end(self) -> None:
        """End the process, whether it has a verdict or not."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def activate_bundle(
    settings: Settings, state: State, check: ModelCheck | None = None
) -> ModelVerdict:
    """Verify the bundle and record it as active; older bundles are refused from then on.

    Neither bundle nor engine is loaded in this process.

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
        verdict = check.verdict()
        refuse_rollback(settings, state, verdict.release)
    except BundleError as error:
        state.audit.record(Event.BUNDLE_REFUSED, "bundle", {"reason": str(error)})
        raise
    except EngineError as error:
        state.audit.record(Event.SELF_TEST_FAILED, settings.model.engine, {"reason": str(error)})
        raise
    finally:
        check.end()
    details = {
        "name": verdict.release.name,
        "version": verdict.release.version,
        "signed_by": verdict.signed_by,
    }
    state.audit.record(Event.BUNDLE_VERIFIED, verdict.release.digest, details)
    if verdict.fallback is not None:
        record_fallback(settings, state, verdict.engine, verdict.fallback)
    return verdict


def record_fallback(settings: Settings, state: State, engine: str, reason: str) -> None:
    """Record that another engine computes than the one that is set, and why."""
    details = {"engine": engine, "reason": reason}
    state.audit.record(Event.ENGINE_FALLBACK, settings.model.engine, details)


def main() -> None:
    """Verify what the settings on standard input name, and write the verdict."""
    log_as_json("model-check")
    settings = Settings(**json.load(sys.stdin))
    try:
        verified = open_bundle(settings)
        model = open_model(settings, verified.bundle, settings.workers)
    except RebrainError as error:
        names = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS]
        answer: dict[str, object] = {"error": str(error), "kind": (*names, "")[0]}
    else:
        signer = verified.signer
        answer = asdict(
            ModelVerdict(
                release=verified.bundle.release,
                signed_by=None if signer is None else asdict(signer),
                engine=model.engine.identity,
                fallback=model.fallback,
            )
        )
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
