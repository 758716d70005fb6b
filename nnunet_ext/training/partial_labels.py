"""Losses on cases in which some labels are not annotated.

The target of such a batch has one more channel at its end: the code of each case, see
`nnunet_ext.data.unannotated.UnannotatedLabels`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ABSENT = -1e4
"""Logit of what cannot be: its probability is 0 in float32, and the loss of a 0 there is 0."""


class PartialLabelLoss(nn.Module):
    """Take a loss over what is annotated in each case.

    Exclusive labels: where a label is not annotated, background means "background or that label", so their
    probabilities are added up before the loss is taken (the marginal loss; merged classes). The label itself then has
    probability 0 and no pixel, and adds nothing to a Dice summed over the batch; to the mean of Dices taken case by
    case it adds a constant. Regions: the output of a region that is not annotated is left out of the case alike.

    Args:
        loss: Called as `loss(logits, target)`.
        sets: Outputs that are not annotated, by code.
        num_outputs: Outputs K of the network.
        has_regions: Whether they are overlapping regions.
        num_channels: Channels of the target without the codes; a target with no more is taken as it is.
        encode: Turns label values into masks of regions, where the target holds such values.

    Source:
        Shi et al. 2021, arXiv:2007.03868 (marginal loss); Fang and Yan 2020, arXiv:2001.00208 (target adaptive loss).
    """

    def __init__(
        self,
        loss: nn.Module,
        sets: Sequence[Sequence[int]],
        num_outputs: int,
        has_regions: bool,
        num_channels: int = 1,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.has_regions = has_regions
        self.num_channels = num_channels
        self.encode = encode
        self.table = torch.tensor([[output in outputs for output in range(num_outputs)] for outputs in sets])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (B, K, *S) and a target (B, C, *S), or (B, C + 1, *S) with codes."""
        if target.shape[1] == self.num_channels:
            return self.loss(logits, target)
        target, absent = self.split(target)
        return self.loss(merge_absent(logits, absent, self.has_regions), target)

    def split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return a target without its codes and without what they say is absent, and what that is, shape (B, K)."""
        codes, target = target[:, -1].flatten(1).amax(dim=1).long(), target[:, :-1]
        absent = self.table.to(target.device)[codes]
        over_pixels = absent.view(*absent.shape, *[1] * (target.ndim - 2))
        if self.has_regions:
            masks = target.bool() if self.encode is None else self.encode(target).bool()
            number = absent.shape[1]  # masks of ignored pixels may follow
            return torch.cat([masks[:, :number] & ~over_pixels, masks[:, number:]], dim=1), absent
        values = target.long()
        hidden = torch.zeros_like(values, dtype=torch.bool)
        for output in range(1, absent.shape[1]):
            hidden |= (values == output) & over_pixels[:, output : output + 1]
        return target.masked_fill(hidden, 0), absent

    def split_all(self, target: Any) -> tuple[Any, Tensor]:
        """Return the same of a target, or of the list of targets of deep supervision."""
        if not isinstance(target, list):
            return self.split(target)
        parts = [self.split(scale) for scale in target]
        return [part for part, _ in parts], parts[0][1]


def find_partial(loss: nn.Module) -> PartialLabelLoss:
    """Return the loss of this kind inside another one; there is one wherever labels are not annotated."""
    return next(module for module in loss.modules() if isinstance(module, PartialLabelLoss))


@contextmanager
def absent_outputs(network: nn.Module, absent: Tensor, has_regions: bool) -> Iterator[None]:
    """Let a network give logits in which some outputs of some cases are absent, see `merge_absent`.

    Args:
        network: The network; a list of logits is merged one by one.
        absent: As for `merge_absent`, as the following.
        has_regions: As above.
    """

    def merge(_: nn.Module, __: Any, outputs: Any) -> Any:
        if isinstance(outputs, list | tuple):
            return [merge_absent(logits, absent, has_regions) for logits in outputs]
        return merge_absent(outputs, absent, has_regions)

    handle = network.register_forward_hook(merge)
    try:
        yield
    finally:
        handle.remove()


def merge_absent(logits: Tensor, absent: Tensor, has_regions: bool) -> Tensor:
    """Return logits in which some outputs of some cases are absent; those of exclusive labels join the background.

    Args:
        logits: Shape (B, K, *S); taken as float32.
        absent: Outputs that are absent, shape (B, K), boolean; never the background.
        has_regions: Whether the outputs are overlapping regions, of which none is the background.
    """
    logits = logits.float()
    absent = absent.view(*absent.shape, *[1] * (logits.ndim - 2))
    merged = logits.masked_fill(absent, ABSENT)
    if has_regions:
        return merged
    joined = torch.cat([logits[:, :1], logits.masked_fill(~absent, ABSENT)[:, 1:]], dim=1)
    return torch.cat([joined.logsumexp(dim=1, keepdim=True), merged[:, 1:]], dim=1)
