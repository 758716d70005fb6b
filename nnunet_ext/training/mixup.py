"""Mixup: train on mixtures of two images, or of what a network makes of them, and of the losses against their labels.

A network says in `mixing_points` where it can be mixed inside: a name for each point, and the places that together
carry everything the later layers see, because a skip connection that is left out would hand them unmixed maps. A place
is the name of a module: its output, `name[:2]` the first two of the tensors that it returns, or `name(1)` the second
argument that it gets.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..networks.crf import RefinedNetwork
from .bare_network import bare_network

MIXUPS: dict[str, str] = {
    "none": "no mixing",
    "input": "of the images",
    "manifold": "of the images or of maps inside the network, at a point drawn for each batch",
}
"""What `mixup=` takes, with one line of help."""

INPUT = "input"
"""The point before the first layer, which every network has."""

_PLACE = re.compile(r"(?P<module>[\w.]+)(\((?P<argument>\d+)\)|\[:(?P<count>\d+)\])?")


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed: x -> weight * x + (1 - weight) * x[order].

    Args:
        weight: Share of the image itself, in [0, 1], one for the batch.
        order: Partner of each image, a permutation, shape (B,).
        point: Where the network is mixed.
    """

    weight: float
    order: Tensor
    point: str

    def of(self, features: Any) -> Any:
        """Mix a tensor (B, ..), or each of some; what is no floating-point tensor, such as a position, stays."""
        if isinstance(features, list | tuple):
            return type(features)(self.of(part) for part in features)
        if not isinstance(features, Tensor) or not features.is_floating_point():
            return features
        return torch.lerp(features[self.order], features, self.weight)


class Mixup:
    """Mix the batches of a training, and their losses, with the same weight and the same partners.

    The loss of a mixed batch is weight * loss(labels) + (1 - weight) * loss(labels of the partners): of cross-entropy
    that is the loss against mixed labels, and it is right for every other loss too, for regions and ignored pixels.
    All processes of a training draw the same weight and point, because losses summed over the whole batch span them;
    partners are drawn within each process. Drawn is from (seed, epoch) alone, so a resumed training goes on exactly.

    Validation and prediction are left alone: nothing is mixed while the network is in evaluation mode.

    Args:
        network: The network, as it is trained.
        kind: Key of `MIXUPS`.
        alpha: Both parameters of the beta distribution of the weight, > 0; small values mix little.
        seed: Seed of the training.
        rank: This process, from 0.

    Raises:
        OptionError: If an option is not allowed, or the network names no mixing points and is to be mixed inside.

    Source:
        Zhang et al. 2018, arXiv:1710.09412; inside the network, Verma et al. 2019, arXiv:1806.05236.
    """

    def __init__(
        self, network: nn.Module, kind: str = "none", alpha: float = 0.4, seed: int = 0, rank: int = 0
    ) -> None:
        if kind not in MIXUPS:
            raise OptionError(f"mixup must be one of {', '.join(MIXUPS)}, got {kind!r}")
        if not 0 < alpha < float("inf"):
            raise OptionError(f"mixup_alpha must be a number > 0, got {alpha}")
        self.network = bare_network(network)
        self.kind = kind
        self.alpha = alpha
        self.seed = seed
        self.rank = rank
        self.mix: Mix | None = None
        self.points: dict[str, tuple[str, ...]] = {INPUT: ()}
        if kind == "manifold":
            self.points.update({name: tuple(places) for name, places in mixing_points(self.network).items()})
            for place in sorted({place for places in self.points.values() for place in places}):
                self._watch(place)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of an epoch.

        Args:
            epoch: Number of the epoch.
        """
        self._common = np.random.default_rng((self.seed, epoch))
        self._own = np.random.default_rng((self.seed, epoch, 1 + self.rank))

    def begin(self, images: Tensor) -> Tensor:
        """Draw how a batch is mixed; it holds until the next one begins, also for what is computed again.

        Args:
            images: Shape (B, C, *S).

        Returns:
            What the network shall see.
        """
        if self.kind == "none":
            return images
        weight = float(self._common.beta(self.alpha, self.alpha))
        point = list(self.points)[self._common.integers(len(self.points))]
        order = torch.from_numpy(self._own.permutation(len(images))).to(images.device)
        self.mix = Mix(weight, order, point)
        return self.mix.of(images) if point == INPUT else images

    def loss(self, loss: Callable[[Any, Any], Tensor], outputs: Any, target: Any) -> Tensor:
        """Compute the loss of the batch that began last.

        Args:
            loss: Called as `loss(outputs, target)`.
            outputs: What the network made of it: logits (B, K, *S), or a list of them.
            target: Its labels (B, C, *S), or a list of them, not mixed.
        """
        if self.mix is None:
            return loss(outputs, target)
        order, weight = self.mix.order, self.mix.weight
        others = [part[order] for part in target] if isinstance(target, list) else target[order]
        return weight * loss(outputs, target) + (1 - weight) * loss(outputs, others)

    def _watch(self, place: str) -> None:
        """Mix at a place, whenever the point of a batch has it."""
        match = _PLACE.fullmatch(place)
        assert match is not None, place
        module, argument, count = self.network.get_submodule(match["module"]), match["argument"], match["count"]

        def mix_output(_: nn.Module, __: Any, output: Any) -> Any:
            mix = self._mix_at(place)
            if mix is None:
                return output
            if count is None:
                return mix.of(output)
            return [*mix.of(output[: int(count)]), *output[int(count) :]]

        def mix_argument(_: nn.Module, inputs: tuple) -> tuple:
            mix, position = self._mix_at(place), int(argument)
            if mix is None:
                return inputs
            return (*inputs[:position], mix.of(inputs[position]), *inputs[position + 1 :])

        if argument is None:
            module.register_forward_hook(mix_output)
        else:
            module.register_forward_pre_hook(mix_argument)

    def _mix_at(self, place: str) -> Mix | None:
        if self.mix is None or not self.network.training or place not in self.points[self.mix.point]:
            return None
        return self.mix


def mixing_points(network: nn.Module) -> Mapping[str, Sequence[str]]:
    """Return where a network can be mixed inside: the places of each point, by name.

    Args:
        network: One that says so in `mixing_points`; nnU-Net's planned one, where it is each stage of the encoder; or
            either with a CRF behind it.

    Raises:
        OptionError: If it is neither.
    """
    if isinstance(network, RefinedNetwork):
        # the image, which the appearance term looks at, is mixed too
        points = mixing_points(network.base)
        return {name: (*(f"base.{place}" for place in places), "crf(1)") for name, places in points.items()}
    own = getattr(network, "mixing_points", None)
    if own:
        return own
    stages = getattr(getattr(network, "encoder", None), "stages", None)
    if stages is None:
        raise OptionError(f"{type(network).__name__} names no mixing_points for mixup=manifold; set mixup=input")
    return {f"stage{number}": (f"encoder.stages.{number}", f"encoder[:{number}]") for number in range(len(stages))}
