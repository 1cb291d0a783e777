"""Where the networks are trained in bfloat16, and where in single precision."""

import torch


def reduced(device: str) -> torch.autocast:
    """Compute in bfloat16 where the device has instructions for it, else in single precision.

    A processor without them computes bfloat16 in software, some ten times more slowly than
    single precision (tests/benchmarks/training_step.py).

    Parameters
    ----------
    device : str
        "cpu" or "cuda".
    """
    return torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
