"""Networks in the small size that they name for CPUs."""

from typing import Any

from nnunet_ext.networks import network_class


def small_options(key: str, dims: int) -> dict[str, Any]:
    """Return the options of a network's small variant; of a network around another one, those of its default base."""
    network = network_class(key)
    base = getattr(network, "default_base", {}).get(dims)
    small = small_options(base, dims) if base else {}
    return {"base_options": small} if small else getattr(network, "small_options", {})
