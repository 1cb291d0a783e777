"""One run of the comparison with the paper's peers: train a method with a seed, score it.

    OUT/runs/<method>-<seed>.json   `PeerRun`: written last, so a run without it is repeated
    OUT/runs/<method>-<seed>.npz    its volume of the first subject under `PICTURED`, for a figure

Every run has a process of its own, so that its peak memory is its own. Where the comparison is
stopped, the runs in progress still end by themselves and are found by the next one.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from rebrain_node.errors import RebrainError
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData, Volume, digest_of
from trainer.data.placing import placements
from trainer.data.protocols import Case, Sparsity, thinned
from trainer.evaluate.metrics import Reference, metrics_of_volume
from trainer.peers.catalogue import METHODS
from trainer.peers.fitting import Budget, Cost, Peer, fit, parameters, synthesised
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.train.prepared import PreparedSource

PROTOCOLS: Final = tuple(Sparsity(kind, k) for kind in ("decimate", "thick") for k in (2, 3, 4))
PICTURED: Final = PROTOCOLS[0]  #: the protocol of the figure, and of the cost of a volume

SubjectScores = dict[str, dict[str, float]]  #: by subject, by metric


class ComparisonError(RebrainError):
    """The comparison cannot be made as asked; the message says what to change."""


class PeerRun(BaseModel):
    """The JSON of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    seed: int
    digest: str  #: of configuration, data, budget and sampling
    iterations: int
    training_seconds: float  #: of the processor
    first_loss: float
    last_loss: float
    parameters: int
    volume_seconds: float  #: of the processor, mean over the subjects under `PICTURED`
    volume_flop: float
    memory_mib: float  #: largest resident size of the process, training and synthesis
    scores: dict[str, SubjectScores]  #: by protocol


@dataclass(frozen=True, kw_only=True)
class PeerRequest:
    """What all runs of a comparison share."""

    config: Path
    data: Path
    out: Path
    budget: Budget
    sampling_steps: int  #: of the methods that sample by diffusion

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what determines the scores."""
        config = TrainConfig.load(self.config)
        relevant = (
            config.training_digest,
            config.recipe.model_dump_json(),
            digest_of(self.data / "dataset.json"),
            repr(self.budget),
            str(self.sampling_steps),
        )
        return hashlib.sha256(" ".join(relevant).encode()).hexdigest()

    def file(self, method: str, seed: int) -> Path:
        """Return the JSON of a run."""
        return self.out / "runs" / f"{method}-{seed}.json"

    def finished(self, method: str, seed: int) -> PeerRun | None:
        """Read a run; None where it has not ended.

        Raises
        ------
        ComparisonError
            It is of another configuration, data set, budget or sampling.
        """
        path = self.file(method, seed)
        if not path.is_file():
            return None
        run = PeerRun.model_validate_json(path.read_bytes())
        if run.digest != self.digest:
            raise ComparisonError(
                f"{path} is of another configuration, data set, budget or number of sampling "
                "steps; give another --out"
            )
        return run


def run_peer(request: PeerRequest, method: str, seed: int) -> PeerRun:
    """Train and score one method with one seed, and write its files.

    Raises
    ------
    ComparisonError
        The data set has no positions in millimetres, or no subject to train on or to score.
    """
    config, data = TrainConfig.load(request.config), PreparedData.open(request.data)
    if not data.volumetric or not data.split["test"] or not data.split["train"]:
        raise ComparisonError(
            f"{request.data}: the comparison needs volumes with positions in mm, and subjects "
            "with the roles train and test"
        )
    torch.manual_seed(seed)
    peer = METHODS[method](config, request.sampling_steps)
    training = TrainingVolumes.of(PreparedSource.open(request.data, config.recipe))
    result = fit(peer, training, request.budget, seed)
    scores: dict[str, SubjectScores] = {str(protocol): {} for protocol in PROTOCOLS}
    costs, pictured = [], None
    for protocol, case in cases(data):
        volume, cost = _synthesised(peer, case, data, config)
        truth = Reference.of(case, volumetric=True)
        found = metrics_of_volume(volume, truth, "standard")
        scores[str(protocol)][case.subject.name] = found
        if protocol == PICTURED:
            costs.append(cost)
            pictured = volume if pictured is None else pictured
    run = PeerRun(
        method=method,
        seed=seed,
        digest=request.digest,
        iterations=result.iterations,
        training_seconds=result.seconds,
        first_loss=result.first_loss,
        last_loss=result.last_loss,
        parameters=parameters(peer.network),
        volume_seconds=float(np.mean([cost.seconds for cost in costs])),
        volume_flop=float(np.mean([cost.flop for cost in costs])),
        memory_mib=peak_memory_mib(),
        scores=scores,
    )
    _write(request.file(method, seed), run, pictured)
    return run


def cases(data: PreparedData) -> Iterator[tuple[Sparsity, Case]]:
    """Return every subject of the role test under every protocol."""
    for protocol in PROTOCOLS:
        for name in data.split["test"]:
            yield protocol, thinned(data.subject(name), protocol)


def _synthesised(
    peer: Peer, case: Case, data: PreparedData, config: TrainConfig
) -> tuple[Volume, Cost]:
    """Synthesise a case in the unit of the scores, on the pixels of the data set."""
    (placement,) = placements(case.head, case.subject.pixel_mm, config.recipe)
    given = GridCase.of(case, data.source_kind, config.recipe, placement)
    volume, cost = synthesised(peer, given)
    return np.stack([(placement.back(plane, -1.0) + 1) / 2 for plane in volume]), cost


def _write(path: Path, run: PeerRun, pictured: Volume | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pictured is not None:
        np.savez_compressed(path.with_suffix(".npz"), volume=pictured.astype(np.float16))
    part = path.with_suffix(".part")
    part.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def peak_memory_mib() -> float:
    """Return the largest resident size that this process has had, from /proc."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def run_all(
    request: PeerRequest,
    methods: Sequence[str],
    seeds: int,
    processes: int,
    done: Callable[[str, int], None],
) -> list[PeerRun]:
    """Make every run that has not ended, the first seed of all methods first.

    Parameters
    ----------
    done : callable
        Called with method and seed as each run has ended, also with those that had.
    """
    wanted = [(method, seed) for seed in range(1, seeds + 1) for method in methods]
    open_runs = []
    for method, seed in wanted:
        if request.finished(method, seed) is None:
            open_runs.append((method, seed))
        else:
            done(method, seed)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        jobs = {pool.submit(partial(run_peer, request), *each): each for each in open_runs}
        for job in as_completed(jobs):
            job.result()
            done(*jobs[job])
    return [run for each in wanted if (run := request.finished(*each)) is not None]
