"""SAM-family networks and parameter-efficient adapters.

The networks are importable from here by name (`from sam_lora import SAMed`); each module is imported when its class
is first asked for.
"""

import importlib
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and (Path(__file__).parent / "networks" / f"{name.lower()}.py").is_file():
        return getattr(importlib.import_module(f"{__name__}.networks.{name.lower()}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
