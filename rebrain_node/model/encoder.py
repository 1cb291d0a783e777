"""The encoder of retrieval: a small Vision Transformer from one CT slice to one embedding.

The similarity of two slices is the cosine of their embeddings. The node runs the exported graph;
this module is the network that the trainer trains and exports. The names of its submodules are
the keys of the weights in released bundles (`encoder.safetensors`), so they do not change.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS, COLUMNS = 128, 104  #: of its input
PIXEL_MM = 1.8  #: 2 x 2 pixels of the model grid
EMBEDDING = 192
PATCH = 8
_DEPTH = 4
_HEADS = 6
_MIDDLE = 2  # blocks before the tokens of the perceptual loss


@dataclass(frozen=True)
class EncoderOutput:
    """Output of the encoder for a batch.

    Attributes
    ----------
    embedding : Tensor
        (batch, EMBEDDING), of length 1.
    middle : Tensor
        (batch, tokens, EMBEDDING), after the middle block.
    """

    embedding: Tensor
    middle: Tensor


class Block(nn.Module):
    """Attention between the patches, then a two-layer perceptron; both residual, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.think_norm = nn.LayerNorm(width)
        self.think = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (batch, tokens, width)."""
        batch, count, width = tokens.shape
        projection = self.query_key_value(self.attend_norm(tokens))
        query, key, value = (
            part.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)
            for part in projection.chunk(3, dim=2)
        )
        attention = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.attended(attention.transpose(1, 2).reshape(batch, count, width))
        return cast("Tensor", tokens + self.think(self.think_norm(tokens)))


class SliceEncoder(nn.Module):
    """Embeds a slice in the brain window; 1.9 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        tokens = (ROWS // PATCH) * (COLUMNS // PATCH)
        self.patches = nn.Conv2d(1, EMBEDDING, PATCH, stride=PATCH)
        self.place = nn.Parameter(torch.zeros(1, tokens, EMBEDDING))
        self.blocks = nn.ModuleList(Block(EMBEDDING, _HEADS) for _ in range(_DEPTH))
        self.norm = nn.LayerNorm(EMBEDDING)
        self.leave = nn.Linear(EMBEDDING, EMBEDDING)
        nn.init.normal_(self.place, std=0.02)

    def encode(self, image: Tensor) -> EncoderOutput:
        """Return the embedding and the middle tokens.

        Parameters
        ----------
        image : Tensor
            (batch, 1, ROWS, COLUMNS), brain window in [-1, 1].
        """
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.place
        middle = tokens
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            if number == _MIDDLE:
                middle = tokens
        embedding = self.leave(self.norm(tokens).mean(dim=1)).float()
        return EncoderOutput(functional.normalize(embedding, dim=1), middle)

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding alone, (batch, EMBEDDING)."""
        return self.encode(image).embedding
