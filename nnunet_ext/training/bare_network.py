"""A network without what wraps it for several processes and for the compiler."""

from typing import Any


def bare_network(network: Any) -> Any:
    """Return the network inside the wrappers of several processes and of the compiler, where it has any.

    Args:
        network: A network, as it is trained.
    """
    inner = getattr(network, "module", network)  # DistributedDataParallel
    return getattr(inner, "_orig_mod", inner)  # torch.compile
