"""Records of stages: each stage is done once for the same inputs."""

from pathlib import Path

import pytest

from trainer.make.records import MakeError, StageRunner, StageWork


def stages_in(out: Path, told: list[str]) -> StageRunner:
    return StageRunner(
        out,
        lambda name: told.append(f"{name} begins"),
        lambda name, seconds: told.append(f"{name} {'done before' if seconds is None else 'done'}"),
    )


def write(out: Path, text: str) -> StageWork:
    return StageWork("a", {"text": text}, ("a.txt",), lambda: (out / "a.txt").write_text(text))


def test_a_stage_is_done_once_and_again_where_inputs_or_outputs_change(tmp_path: Path) -> None:
    told: list[str] = []
    stages = stages_in(tmp_path, told)

    stages.run(write(tmp_path, "one"))
    stages.run(write(tmp_path, "one"))
    stages.run(write(tmp_path, "two"))
    (tmp_path / "a.txt").write_text("altered")
    stages_in(tmp_path, told).run(write(tmp_path, "two"))

    again = ["a begins", "a done"]
    assert told == [*again, "a done before", *again, *again]
    assert (tmp_path / "a.txt").read_text() == "two"


def test_a_stage_that_fails_is_begun_and_not_done(tmp_path: Path) -> None:
    told: list[str] = []
    stages = stages_in(tmp_path, told)

    def fails() -> None:
        (tmp_path / "a.txt").write_text("one")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        stages.run(StageWork("a", {"text": "one"}, ("a.txt",), fails))

    assert stages.record("a").outputs == {}
    assert stages.record("a").inputs == {"text": "one"}
    stages.run(write(tmp_path, "one"))
    assert told[-1] == "a done"


def test_a_damaged_record_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text("{")

    with pytest.raises(MakeError, match=r"a\.json.*remove the file"):
        stages_in(tmp_path, []).run(write(tmp_path, "one"))
