"""Read the .pkl file beside a prediction without running what a pickle may hold.

A pickle is a program. These files need only containers, numbers, strings and NumPy arrays, so only the constructors of
those are looked up; everything else is refused before it runs.
"""

import pickle
from pathlib import Path
from typing import Any

_ALLOWED = {
    "builtins": {"bytes", "set", "frozenset", "complex", "slice", "range"},
    "collections": {"OrderedDict"},
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for `codecs.encode`, by which old pickle protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding must be latin1, got {encoding!r}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        current = module.replace("__builtin__", "builtins").replace("numpy.core.", "numpy._core.")
        if name not in _ALLOWED.get(current, ()):
            raise pickle.UnpicklingError(
                f"only containers, numbers, strings and NumPy arrays are accepted, got {module}.{name}"
            )
        return super().find_class(current, name)


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of containers, numbers, strings and NumPy arrays.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ValueError: If it holds anything else (nothing of it runs), or is damaged.
        OSError: If it can't be opened.
    """
    with Path(path).open("rb") as stream:
        try:
            return _PlainUnpickler(stream).load()
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"{path}: not a pickle that is safe to read: {error}; write it again") from error
