"""The processes that share one training run: started by torchrun, or this one alone.

Every process draws its own part of the same global batch and holds the same weights; gradients
are averaged by DistributedDataParallel. Only the first process writes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from rebrain_node.errors import RebrainError, SettingsError

DeviceName = Literal["cpu", "cuda"]


class TrainingError(RebrainError):
    """A network cannot be trained, or its run not used; the message says why, and the remedy."""


@dataclass(frozen=True)
class Workers:
    """One process among those of a run: this one."""

    rank: int  #: number of this process, from 0
    count: int  #: processes of the run
    device: torch.device

    @property
    def writes(self) -> bool:
        """Return whether this process writes the checkpoint and the curve."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Return which samples of a global batch this process draws.

        Raises
        ------
        TrainingError
            The batch does not divide by the number of processes.
        """
        if batch % self.count:
            raise TrainingError(
                f"a batch of {batch} does not divide by {self.count} processes; "
                "change train.batch or --nproc-per-node"
            )
        size = batch // self.count
        return range(self.rank * size, (self.rank + 1) * size)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over all processes, the same in each."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.count

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return `module` such that its gradients are averaged over all processes."""
        return module if self.count == 1 else DistributedDataParallel(module)


ALONE_ON_CPU = Workers(0, 1, torch.device("cpu"))


def device_of(name: DeviceName | None) -> torch.device:
    """Return the named device; without a name a GPU if there is one.

    Raises
    ------
    SettingsError
        No GPU can be used.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "--device cuda: no GPU that this PyTorch can use; install PyTorch with CUDA and the "
            "driver, or give --device cpu"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined(device_name: DeviceName | None = None) -> Iterator[Workers]:
    """Join the processes that torchrun started, if it did: nccl on GPUs, gloo on CPUs.

    Each computes with OMP_NUM_THREADS threads, by default its share of the cores.

    Raises
    ------
    SettingsError
        No GPU can be used and the device must be one.
    """
    device, count = device_of(device_name), int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = max(1, (os.cpu_count() or 1) // here)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores)))
    if count == 1:
        yield Workers(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()


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
