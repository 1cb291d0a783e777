"""Which stages are done, and with what: one record a stage, written before and after its work.

OUT/records/<stage>.json   digests of what the stage was given and, once it is done, of what it
wrote, relative to OUT
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from pydantic import BaseModel, ConfigDict, ValidationError

from rebrain_node.errors import RebrainError
from rebrain_node.validation import faults_of
from trainer.data.dataset import digest_of


class MakeError(RebrainError):
    """A bundle cannot be made; the message says why, and the remedy."""


class StageRecord(BaseModel):
    """What one stage was given and what it wrote.

    Attributes
    ----------
    inputs : mapping of str to str
        SHA-256, or the value itself, by name.
    outputs : mapping of str to str
        SHA-256 of each file by its path relative to OUT; empty until the stage is done.
    seconds : float
        Of the work, the last time that it was begun.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    inputs: dict[str, str]
    outputs: dict[str, str] = {}
    seconds: float = 0.0


@dataclass(frozen=True)
class StageWork:
    """One stage: its name, what it depends on, and what it writes."""

    name: str
    inputs: Mapping[str, str]
    outputs: Sequence[str]  #: files, relative to OUT
    work: Callable[[], None]


@dataclass(frozen=True)
class StageRunner:
    """Runs stages in a folder, each once for the same inputs."""

    out: Path
    begun: Callable[[str], None]  #: called with the name of a stage that has work to do
    ended: Callable[[str, float | None], None]  #: called with its seconds; None where it was done
    seconds: dict[str, float] = field(default_factory=dict)  #: of every stage that is done

    def run(self, stage: StageWork) -> None:
        """Do the work of a stage unless it was done with these inputs and is unaltered."""
        record = self.record(stage.name)
        if record is not None and self._is_done(record, stage):
            self.seconds[stage.name] = record.seconds
            self.ended(stage.name, None)
            return
        self.begun(stage.name)
        inputs = dict(stage.inputs)
        self._write(stage.name, StageRecord(inputs=inputs))
        start = monotonic()
        stage.work()
        seconds = round(monotonic() - start, 1)
        outputs = {name: digest_of(self.out / name) for name in stage.outputs}
        self._write(stage.name, StageRecord(inputs=inputs, outputs=outputs, seconds=seconds))
        self.seconds[stage.name] = seconds
        self.ended(stage.name, seconds)

    def record(self, name: str) -> StageRecord | None:
        """Read the record of a stage; None where it was never begun.

        Raises
        ------
        MakeError
            The file is not what this version writes.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            return StageRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise MakeError(
                f"{path}: {faults_of(error)}; remove the file to repeat the stage"
            ) from error

    def _is_done(self, record: StageRecord, stage: StageWork) -> bool:
        if record.inputs != stage.inputs or set(record.outputs) != set(stage.outputs):
            return False
        return all(
            (self.out / name).is_file() and digest_of(self.out / name) == expected
            for name, expected in record.outputs.items()
        )

    def _path(self, name: str) -> Path:
        return self.out / "records" / f"{name}.json"

    def _write(self, name: str, record: StageRecord) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(path)
