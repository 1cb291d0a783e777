"""Training the control branch: the loop of the bridge, on guided samples, the backbone frozen."""

import torch
from torch import Tensor

from rebrain_node.model.control import ControlBranch, GuidedUNet
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import BridgeUNet, network_of
from trainer.config import Training
from trainer.train_bridge import State

_PART = "control."


def guided_network(recipe: Recipe, backbone: dict[str, Tensor]) -> GuidedUNet:
    """Return an untrained control branch over trained weights.

    Raises
    ------
    TypeError
        The recipe's network takes no control branch.
    """
    network = network_of(recipe)
    if not isinstance(network, BridgeUNet):
        raise TypeError(f"a network of the objective {recipe.objective} takes no control branch")
    network.load_state_dict(backbone)
    return GuidedUNet(network, ControlBranch(network))


def fresh_state(recipe: Recipe, training: Training, backbone: dict[str, Tensor]) -> State:
    """Return an untrained state, seeded; only the control branch takes a gradient."""
    torch.manual_seed(training.seed)
    network = guided_network(recipe, backbone)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.control.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    mean = {name: value.clone() for name, value in network.state_dict().items()}
    return State(network, mean, optimiser, 0, 0.0)


def control_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the control branch out of those of a `GuidedUNet`."""
    return {
        name.removeprefix(_PART): value for name, value in weights.items() if name.startswith(_PART)
    }
