"""The guides of a case, by the node's own steps: locate, then retrieve."""

from dataclasses import dataclass

import numpy as np

from rebrain_node.domain.volume import AIR_HU, Grid, Guide, PreparedVolume, Target
from rebrain_node.engine.open import open_encoder
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.ports import Encoder, Exemplars
from rebrain_node.retrieval.open import open_exemplars
from rebrain_node.steps.locate import locate
from rebrain_node.steps.retrieve import embed, retrieve
from trainer.data.intensities import without_table
from trainer.data.placing import Placement
from trainer.data.protocols import Case


@dataclass(frozen=True)
class Guiding:
    """An opened encoder and knowledge base."""

    encoder: Encoder
    exemplars: Exemplars
    recipe: Recipe

    @classmethod
    def of(cls, bundle: ModelBundle) -> "Guiding | None":
        """Open those of a bundle; None where its recipe retrieves none.

        Raises
        ------
        KnowledgeBaseRefused, EngineFailed
            As in the node.
        """
        if not bundle.recipe.retrieves:
            return None
        encoder = open_encoder("openvino", bundle)
        return cls(encoder, open_exemplars(bundle, encoder), bundle.recipe)

    def guides(self, case: Case, placement: Placement) -> tuple[Guide, ...]:
        """Give every position drawn its guide, as the node would.

        The node leaves nobody out, so the person must not be in the knowledge base.

        Parameters
        ----------
        case : Case
            CT in HU, positions in mm.
        """
        prepared = prepared_of(case, placement, self.recipe)
        frame = locate(prepared, load_head_template())
        embeddings = embed(prepared, self.encoder, self.recipe)
        return retrieve(prepared, self.recipe, frame, embeddings, self.exemplars)


def prepared_of(case: Case, placement: Placement, recipe: Recipe) -> PreparedVolume:
    """Take the slices given as the node's own preprocessing leaves them."""
    first_mm = float(case.positions_mm[0])
    hu = np.stack([placement.onto(plane, AIR_HU) for plane in without_table(case)])
    head = np.stack([placement.onto(mask.astype(np.float32), 0.0) > 0.5 for mask in case.head])
    count = len(hu)
    steps = np.diff(case.positions_mm)
    return PreparedVolume(
        hu=hu,
        head=head,
        grid=Grid(
            origin_mm=np.zeros(3),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_mm=recipe.grid.pixel_mm,
            rows=recipe.grid.rows,
            columns=recipe.grid.columns,
        ),
        distances_mm=case.positions_mm - first_mm,
        thickness_mm=(float(np.median(steps)) if len(steps) else recipe.spacing_mm,) * count,
        targets=_targets(case, first_mm),
        spacing_mm=recipe.spacing_mm,
        sop_instance_uids=tuple(f"2.25.{k + 1}" for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="2.25.1",
    )


def _targets(case: Case, first_mm: float) -> tuple[Target, ...]:
    below, share = case.bracket()
    found = []
    for k, position in enumerate(case.targets_mm):
        nearest = int(np.argmin(np.abs(case.positions_mm - position)))
        low, high = int(below[k]), int(below[k]) + 1
        if case.measured[k]:
            low = high = nearest
        alpha = 0.0 if case.measured[k] else float(share[k])
        found.append(
            Target(distance_mm=float(position) - first_mm, below=low, above=high, alpha=alpha)
        )
    return tuple(found)
