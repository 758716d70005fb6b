"""Hands nnU-Net the trainers of `nnunet_ext.trainers`, each imported when it is asked for.

nnU-Net asks this module for the trainer's name as an attribute. The classes live in their package, so they can be
pickled for worker processes, and a trainer that can't be imported troubles nobody who doesn't use it.
"""

import importlib
import importlib.util
from typing import Any

_PACKAGE = "nnunet_ext.trainers"


def __getattr__(name: str) -> Any:
    """Return the trainer class from the file of its name.

    Raises:
        AttributeError: If there is no such file: nnU-Net goes on searching elsewhere.
        ImportError: If the file is there but can't be used.
    """
    if name.startswith("_") or not _exists(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{_PACKAGE}.{name}"), name)
    except AttributeError as error:
        # An AttributeError would read as "no such trainer" to nnU-Net, which would hide what is broken.
        raise ImportError(f"the trainer file {_PACKAGE}.{name} is broken: {error}") from error


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"{_PACKAGE}.{name}") is not None
    except ModuleNotFoundError as error:
        raise ImportError(f"{_PACKAGE} must be importable, got: {error}; install it (pip install .)") from error
