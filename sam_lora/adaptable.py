"""What the networks have in common: weights to start from, and an adapter to save and to restore."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn

from .adapter_folder import BASE, BaseFile, find_base, load_adapter, read_base, save_adapter
from .checkpoint_file import CheckpointError, LoadReport


class Adaptable(nn.Module):
    """A network on frozen weights of a file, of which an adapter can be saved.

    Subclasses say how a file is loaded (`_load_base`) and which modules an adapter keeps (`saved_modules`).

    Attributes:
        options: How the network was built, as JSON.
        tuning: What trains; `all` leaves nothing frozen.
        lora_config: peft's configuration of the updates; None if there are none.
        base_file: Where the frozen weights came from; None if from no file.
    """

    options: dict[str, Any]
    tuning: str
    lora_config: LoraConfig | None = None
    base_file: BaseFile | None = None

    def load_pretrained(self, file: str | Path) -> LoadReport:
        """Load weights to start from.

        Args:
            file: The weights.

        Returns:
            What was loaded, resized, left fresh, and not expected.

        Raises:
            CheckpointError: If the file is damaged, or of another model or size.
        """
        report = self._load_base(file)
        self.base_file = BaseFile.of(file)
        return report

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter can be saved: some weights are frozen, and they came from a file."""
        return self.tuning != "all" and self.base_file is not None

    def save_adapter(self, folder: str | Path) -> None:
        """Write what was trained as a folder.

        Args:
            folder: See `sam_lora.adapter_folder.save_adapter`.
        """
        save_adapter(self, folder, self.base_file, self.options)

    def recall_base(self, folder: str | Path) -> None:
        """Take from an earlier adapter of this training where the frozen weights came from; the file need not be there.

        Args:
            folder: The adapter; nothing happens if there is none.
        """
        if (Path(folder) / BASE).is_file():
            record = read_base(folder)
            self.base_file = BaseFile(Path(record.get("path", record["file"])), record["sha256"])

    @staticmethod
    def find_base(folder: str | Path, places: Sequence[str | Path] = ()) -> BaseFile:
        """Find the file that the frozen weights of an adapter came from.

        Args:
            folder: See `sam_lora.adapter_folder.find_base`, as for the following one.
            places: Files, or folders that hold it.
        """
        return find_base(folder, places)

    def restore(self, folder: str | Path, base: BaseFile) -> None:
        """Load the frozen weights that an adapter was trained on, and the adapter.

        Args:
            folder: As written by `save_adapter`, of a network of the same shape.
            base: The file of the frozen weights, as `find_base` finds it.

        Raises:
            CheckpointError: If the two do not fit the network, or do not make it up.
        """
        device = next(self.parameters()).device
        self.cpu()  # what is computed from the base, such as resized positions, is then equal on every device
        fresh = set(self._load_base(base.path).fresh) - set(load_adapter(self, folder).loaded)
        if fresh:
            raise CheckpointError(f"{folder} and {base.path} lack {len(fresh)} weights, such as {sorted(fresh)[0]}")
        self.to(device)
        self.base_file = base

    def _load_base(self, file: str | Path) -> LoadReport:
        raise NotImplementedError(type(self).__name__)
