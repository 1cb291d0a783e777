"""`verify`: whether files are synthetic images of this software, of which set, and unaltered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.audit_proof import Keys
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table, progress

if TYPE_CHECKING:
    from rebrain_node.app.integrity import CheckedSet
    from rebrain_node.app.origin import FileOrigin

_UNREADABLE = 1
_NOT_FOUND = 3
_CONTRADICTED = 4


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(exists=True, help="Files (DICOM, NIfTI, PNG, JPEG), or folders of them."),
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The set manifest that must prove the DICOM files; without it, that of the "
            "database of the node, or beside the file.",
        ),
    ] = None,
    key: Keys = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say whether images are synthetic, and whether unaltered.

    The pixels are searched for the watermark where the header says nothing. An object is held
    against the manifest of its set where one is known: altered and added objects are named, and of
    a folder missing ones too.

    Exit code 0 if every file carries a mark, 4 if an object is not as its manifest says (with
    --manifest also if a trusted key did not sign it), 3 if in a file no mark was found, 1 if a
    file cannot be read. "No mark found" does not mean that the image was acquired.
    """
    from rebrain_node.app.compose import limit_decoding
    from rebrain_node.app.integrity import check_sets, open_manifests
    from rebrain_node.app.origin import files_below, origin_of
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    limit_decoding(settings)
    files = files_below(paths)
    with progress() as bar:
        origins = [origin_of(path) for path in bar.track(files, description="verify")]
    with open_manifests(settings, manifest, key or ()) as manifests:
        sets = check_sets(origins, manifests, [path for path in paths if path.is_dir()])
    if not files and not sets:
        raise typer.BadParameter("these folders hold no file", param_hint="PATHS")
    if as_json:
        print_json(
            {
                "files": [each.to_json() for each in origins],
                "sets": [each.to_json() for each in sets],
            }
        )
    else:
        _print(origins, sets)
    code = _exit_code(origins, sets, must_prove=manifest is not None)
    if code:
        raise typer.Exit(code)


def _exit_code(origins: list[FileOrigin], sets: tuple[CheckedSet, ...], *, must_prove: bool) -> int:
    verdicts = {each.verdict for each in origins}
    if "unreadable" in verdicts:
        return _UNREADABLE
    if any(each.contradicts or (must_prove and not each.proven) for each in sets):
        return _CONTRADICTED
    return _NOT_FOUND if "no mark found" in verdicts else 0


def _print(origins: list[FileOrigin], sets: tuple[CheckedSet, ...]) -> None:
    integrity = {file.path: file.integrity for each in sets for file in each.files}
    rows = [
        (
            each.path.name,
            each.verdict,
            integrity.get(each.path, "-"),
            " ".join(filter(None, (each.bundle, each.software and f"by node {each.software}"))),
            "" if each.set_digest is None else f"{each.set_digest}, revision {each.revision}",
            each.sentence,
        )
        for each in origins
    ]
    columns = ("file", "verdict", "against its manifest", "bundle", "set", "because")
    print_table("Files", columns, rows)
    if sets:
        print_table(
            "Sets",
            ("set", "objects", "missing", "manifest", "made by"),
            [
                (
                    each.known.manifest.set_digest,
                    len(each.known.manifest.objects),
                    ", ".join(one.sop_instance_uid for one in each.missing) or "none",
                    each.known.place,
                    each.known.sentence,
                )
                for each in sets
            ],
        )
