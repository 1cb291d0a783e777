"""Training computes in bfloat16 only where the device has instructions for it."""

import pytest
import torch

from trainer.train.precision import reduced


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_a_processor_without_bfloat16_computes_in_single_precision(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    layer = torch.nn.Linear(4, 4)
    with reduced("cpu"):
        assert layer(torch.zeros(1, 4)).dtype == expected
    assert layer(torch.zeros(1, 4)).dtype == torch.float32
