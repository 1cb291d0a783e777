"""The report of an evaluation: JSON for programs, Markdown and one HTML file for people.

    out/
      evaluation.json   the document, as `rebrain-train evaluate --json` prints it
      evaluation.md     tables and figures by reference
      evaluation.html   the same in one file that needs nothing else
      figures/*.png

Everything is made in memory first: a report that cannot be drawn leaves nothing behind, and the
command puts a finished folder in its place as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from trainer.evaluate.contents import Beside, Contents, gather
from trainer.evaluate.evaluation import Document, Evaluation
from trainer.evaluate.markdown import bullets, escaped, markdown_table
from trainer.evaluate.page import page
from trainer.evaluate.statements import WARNING


def write_report(
    evaluation: Evaluation,
    out: Path,
    beside: Beside | None = None,
) -> None:
    """Write the report of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        Its document goes into `evaluation.json` as it is.
    out : Path
        Folder, empty or not there yet.
    beside : Beside, optional
        What else the report shows.

    Raises
    ------
    ValueError
        A document beside is of other subjects, another bundle or the same protocol.
    """
    beside = beside or Beside()
    for other in beside.documents:
        _same_but_protocol(evaluation.document, other)
    write_contents(gather(evaluation, beside), evaluation.document, out, "evaluation")


def write_contents(
    contents: Contents, document: Mapping[str, object], out: Path, name: str
) -> None:
    """Write a report as `out/NAME.json`, `.md`, `.html` and `figures/*.png`."""
    files = {
        f"{name}.json": json_text(document).encode(),
        f"{name}.md": _markdown(contents).encode(),
        f"{name}.html": page(contents).encode(),
    } | {f"figures/{plate.name}.png": plate.png for plate in contents.plates}
    _place(files, out)


def json_text(document: Mapping[str, object]) -> str:
    """Write a document as JSON; what is not a number is null there."""
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _same_but_protocol(document: Document, other: Document) -> None:
    for name, here, there in (
        ("subjects", document["dataset"]["subjects"], other["dataset"]["subjects"]),
        ("bundle", document["bundle"]["digest"], other["bundle"]["digest"]),
        ("definitions", document["mode"], other["mode"]),
    ):
        if here != there:
            raise ValueError(
                f"an evaluation beside has other {name} ({there}, here {here}): only the protocol "
                "may differ"
            )
    if document["protocol"] == other["protocol"]:
        raise ValueError(f"an evaluation beside has the same protocol, {other['protocol']}")


def _markdown(contents: Contents) -> str:
    parts = [
        f"# {escaped(contents.title)}\n\n{escaped(contents.subtitle)}\n\n**{WARNING}.**\n",
        f"## Read this first\n\n{bullets(contents.limits)}",
        "## Scores\n",
        *(markdown_table(table) for table in contents.tables),
        *(["## Pictures\n"] if contents.plates else []),
        *(
            f"![{escaped(plate.title)}](figures/{plate.name}.png)\n\n{escaped(plate.caption)}\n"
            for plate in contents.plates
        ),
        "## What was evaluated\n\n"
        + bullets([f"{name}: {value}" for name, value in contents.facts]),
    ]
    if contents.skipped:
        parts.append(f"## Methods left out\n\n{bullets(contents.skipped)}")
    if contents.notes:
        parts.append(f"## Notes\n\n{bullets(contents.notes)}")
    if contents.folded:
        parts += ["## Every subject\n", *(markdown_table(table) for table in contents.folded)]
    return "\n".join(parts)


def _place(files: Mapping[str, bytes], out: Path) -> None:
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
