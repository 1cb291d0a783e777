"""The methods of the comparison by name, in the order of the paper's Table 1, then ours."""

from collections.abc import Callable, Mapping
from typing import Final

from trainer.config import TrainConfig
from trainer.peers.aldm import LatentDiffusionPeer
from trainer.peers.ct2mri import Ct2MriPeer
from trainer.peers.dual_bridge import DualBridgePeer
from trainer.peers.fitting import Peer
from trainer.peers.i3net import I3NetPeer
from trainer.peers.maskgan import MaskGanPeer
from trainer.peers.mdaunet import MultiResolutionPeer
from trainer.peers.own import OwnPeer
from trainer.peers.rebrain_paper import PaperPeer
from trainer.peers.synthsr import SynthSrPeer

#: makes an untrained method from a configuration and the time steps that diffusion samples by
Make = Callable[[TrainConfig, int], Peer]

METHODS: Final[Mapping[str, Make]] = {
    "MaskGAN": lambda _config, _steps: MaskGanPeer(),
    "CT2MRI": lambda _config, steps: Ct2MriPeer(steps),
    "DualApproxBridge": lambda _config, steps: DualBridgePeer(steps),
    "I3Net": lambda _config, _steps: I3NetPeer(),
    "ALDM": lambda _config, steps: LatentDiffusionPeer(steps),
    "mDAUNet": lambda _config, _steps: MultiResolutionPeer(),
    "ReBrain-paper": PaperPeer,
    "SynthSR": lambda _config, _steps: SynthSrPeer(),
    "regression": lambda config, _steps: OwnPeer(config, "regression"),
    "rebrain": lambda config, _steps: OwnPeer(config, "directional"),
}
