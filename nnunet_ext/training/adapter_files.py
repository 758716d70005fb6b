"""The adapters that a training under nnU-Net keeps beside its checkpoints, of networks on frozen weights of a file."""

from pathlib import Path
from typing import Any

_WITH_ADAPTER = {"checkpoint_best": "adapter_best", "checkpoint_final": "adapter_final"}


def save_adapter(network: Any, checkpoint: str | Path) -> None:
    """Save what was trained alone beside the best and the final checkpoint, if the network has such a part.

    Args:
        network: The network, without the wrappers of several processes and of the compiler.
        checkpoint: nnU-Net's checkpoint.
    """
    file = Path(checkpoint)
    if file.stem in _WITH_ADAPTER and getattr(network, "has_adapter", False):
        network.save_adapter(file.with_name(_WITH_ADAPTER[file.stem]))


def recall_base(network: Any, output_dir: str | Path) -> None:
    """Let the network of a continued training know where its frozen weights came from, for its next adapters.

    Args:
        network: As for `save_adapter`.
        output_dir: Folder of the checkpoints.
    """
    recall = getattr(network, "recall_base", None)
    if recall is not None:
        recall(Path(output_dir) / _WITH_ADAPTER["checkpoint_best"])
