"""What the networks have in common: weights to start from, and an adapter to save."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn

from .checkpoint_file import LoadReport


class Adaptable(nn.Module):
    """A network on frozen weights of a file, of which an adapter can be saved.

    Subclasses say how a file is loaded (`_load_base`) and which modules an adapter keeps (`saved_modules`).

    Attributes:
        options: How the network was built, as JSON.
        lora_config: peft's configuration of the updates; None if there are none.
        base_file: Where the frozen weights came from; None if from no file.
    """

    options: dict[str, Any]
    lora_config: LoraConfig | None = None
    base_file: Path | None = None

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
        self.base_file = Path(file)
        return report

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter can be saved: there are updates, and the frozen weights came from a file."""
        return self.lora_config is not None and self.base_file is not None

    def save_adapter(self, folder: str | Path) -> None:
        """Write what was trained as a peft folder.

        Args:
            folder: See `sam_lora.adapter_folder.save_adapter`.
        """
        from .adapter_folder import save_adapter

        save_adapter(self, folder, self.base_file, self.options)

    def _load_base(self, file: str | Path) -> LoadReport:
        raise NotImplementedError(type(self).__name__)
