"""Which bundle makes results, and which objects are written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rebrain_node.settings.values import Section, text_of


class Model(Section):
    """Which bundle, by whom it may be released, on which engine."""

    bundle: Path | None = Field(
        default=None,
        description="folder of the model bundle; none means the demonstration bundle that ships",
    )
    trusted_keys: tuple[Path, ...] = Field(
        default=(),
        description=(
            "files of public Ed25519 keys (PEM) whose bundles are taken, each called by its "
            "file's name; the key of the bundle that ships is always one of them ([who may "
            "release](how-to/sign-a-bundle.md))"
        ),
    )
    unsigned: Literal["refuse", "accept"] = Field(
        default="refuse",
        description=(
            "a bundle without a signature: `refuse` or `accept`; a signature that is there must "
            "be good either way"
        ),
    )
    accept_older: (
        Annotated[
            str, text_of("[0-9a-f]{64}", "must be the digest of a bundle: 64 digits, 0-9 and a-f")
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "digest of the one bundle that is taken although a newer one of its name was active"
            " here"
        ),
    )
    engine: Literal["openvino", "torch", "torch-cuda", "tensorrt"] = Field(
        default="openvino",
        description=(
            "`openvino` on the processor; `tensorrt` (needs the `gpu` extra) or `torch-cuda` "
            "(the `train` extra) on an NVIDIA GPU, in whose place `openvino` computes where they "
            "cannot start; or `torch` as the reference (the `train` extra)"
        ),
    )
    longest_synthesis_s: float = Field(
        default=3600.0,
        gt=0,
        description=(
            "a worker whose synthesis takes longer is killed and started again, seconds; the "
            "series is tried three times at most"
        ),
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description=(
            "threads of each worker's engine; none means the physical cores shared among the "
            "workers: two threads of one core count as one"
        ),
    )


class Objects(Section):
    """Which objects are written, and how."""

    mr: Literal["classic", "enhanced"] = Field(
        default="classic",
        description=(
            "the synthetic series: `classic`, one MR Image a slice, which every PACS shows; "
            "`enhanced`, one multi-frame Enhanced MR Image"
        ),
    )
    companions: tuple[Literal["PM", "SEG", "SC", "SR", "KOS"], ...] = Field(
        default=("PM", "SEG", "SC", "SR", "KOS"), description="objects written beside the MR series"
    )
    map_precision: Literal["float32", "uint16"] = Field(
        default="uint16",
        description="pixels of the uncertainty map: `uint16`, which viewers show, or `float32`",
    )
    preview_banner: Literal["none", "border", "full"] = Field(
        default="border", description="banner of the preview: `none`, `border` or `full`"
    )
    uncertain_above: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=(
            "none means the limit of the bundle's recipe (`abstain.voxel_above`), or 0.1 where it"
            " has none; voxels whose uncertainty is above this ratio of the display range are "
            "marked in the segmentation as not to be trusted; above 0, below 1"
        ),
    )


class MarksSettings(Section):
    """How the MR says that it is synthetic, beside the words that every object holds."""

    visible: Literal["none", "presentation-state", "corner", "border"] = Field(
        default="presentation-state",
        description=(
            "mark that viewers show on the MR: `none`; `presentation-state`, an object of the set "
            "with the words SYNTHETIC - NOT FOR DIAGNOSIS, which leaves the pixels as they are; "
            "`corner`, these words in the pixels, or `border`, a white frame in them: never on the "
            "head of a slice, and where there is no room there is none and Image Comments say so"
        ),
    )
    watermark: Literal["on", "off"] = Field(
        default="on",
        description=(
            "`on`: the pixels of the head carry a mark that is not seen and by which `verify` and "
            "the check of received series know a slice without its header ([marks](marks.md)); "
            "`off`: the pixels are those of the model"
        ),
    )
