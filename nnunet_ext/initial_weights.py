"""Start the network of a training from the weights of another training, of the same task or of another one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .crf_option import WITHOUT
from .errors import OptionError
from .network_choice import network_class
from .networks._weights import LoadReport, load_weights, read_weights

METHODS = {"genesis": "all", "genesis-encoder": "encoder", "nnunet": "whole"}
"""What `init=<method>:<file>` takes over, by method: all but the last layer, the encoder alone, or everything."""

_NAMED = 3
"""So many names of a long list are shown."""

_NUMBER = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64", "bool")),
]
"""What checkpoints of nnU-Net hold beside tensors: scores as numbers of numpy. None of these runs code."""


def parse_init(setting: str) -> tuple[str, str]:
    """Split a setting `<method>:<file>`.

    Args:
        setting: Such as `genesis:runs/models_genesis/model_best.pt`.

    Returns:
        The part of the network that is taken over, `all`, `encoder` or `whole`, and the file.

    Raises:
        OptionError: If the method is unknown or there is no file.
    """
    method, _, file = setting.partition(":")
    if method not in METHODS or not file:
        forms = " or ".join(f"{name}:FILE" for name in METHODS)
        raise OptionError(f"option init must be {forms}, got {setting!r}")
    return METHODS[method], file


def load_initial(network: Any, key: str, setting: str) -> LoadReport:
    """Load what a setting names into a network.

    Args:
        network: The network, without the wrappers of several processes and of the compiler.
        key: Its key, as the option `network` takes it.
        setting: See `parse_init`.

    Returns:
        What was loaded, adapted to the number of input channels, left fresh, and not expected.

    Raises:
        OptionError: If the network does not say what its encoder is, or the file is missing, damaged or does not fit.
    """
    parts, file = parse_init(setting)
    if parts == "whole":
        return _load_trained(network, key, file)
    kind = network_class(key)
    encoder, head = (getattr(kind, name, None) for name in ("encoder_names", "head_names"))
    if encoder is None or head is None:
        raise OptionError(f"network {key} takes no init; leave init out")
    try:
        return load_weights(network, file, encoder=encoder, head=head, parts=parts)
    except ValueError as error:
        raise OptionError(f"init: {error}") from error


def count_writes(network: torch.nn.Module) -> int:
    """Return how often the weights were written: more once `-pretrained_weights` has loaded some, which tells nobody.

    Args:
        network: The network, without wrappers.
    """
    return sum(value._version for value in network.state_dict().values())


def load_starting_weights(network: Any, options: Any, log: Callable[..., None], *, loaded: bool = False) -> None:
    """Load what `init=` or `pretrained=` names, and say so; say too if a network starts from random weights.

    Args:
        network: The network, without the wrappers of several processes and of the compiler; the CRF of the option `crf`
            behind it starts fresh.
        options: The `nnunet_ext.options.Options` of the training.
        log: nnU-Net's `print_to_log_file`.
        loaded: Whether `nnUNetv2_train -pretrained_weights` has loaded weights already.

    Raises:
        OptionError: If two files are named, the network takes no such file, or needs one and none is named, or the file
            does not fit.
    """
    key, file = options.network, options.pretrained
    if loaded:
        for name in ("init", "pretrained"):
            if getattr(options, name) is not None:
                raise OptionError(f"option {name} and -pretrained_weights each name weights; leave one of them out")
        log("the weights are those of -pretrained_weights")
        return
    if options.crf != WITHOUT:
        frozen, network = network.needs_pretrained, network.base
        if frozen and (options.init is None or parse_init(options.init)[0] != "whole"):
            raise OptionError(
                f"crf={options.crf} keeps network {key} as it was loaded, so all of it must be trained; set "
                "init=nnunet:FILE, or crf=all"
            )
    if options.init is not None:
        log(f"{options.init}: {load_initial(network, key, options.init)}")
        return
    load = getattr(network, "load_pretrained", None)
    if file is None:
        if getattr(network, "needs_pretrained", False):
            raise OptionError(
                f"network {key} keeps part of its weights as they are; set pretrained=FILE, or let all of them train"
            )
        if load is not None:
            setting = "pretrained=FILE" if not hasattr(network, "encoder_names") else "init=genesis:FILE"
            log(
                f"WARNING: {key} starts from RANDOM weights; set {setting} by python -m nnunet_ext configure",
                add_timestamp=False,
            )
        return
    if load is None:
        raise OptionError(f"network {key} takes no pretrained file; leave pretrained out")
    try:
        log(f"{file}: {load(file)}")
    except ValueError as error:
        raise OptionError(f"pretrained: {error}") from error


def _load_trained(network: torch.nn.Module, key: str, file: str) -> LoadReport:
    """Load all weights of a trained network of the same kind, options, channels and classes."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            found = read_weights(file)
    except ValueError as error:
        raise OptionError(f"init: {error}") from error
    try:
        network.load_state_dict(found)
    except RuntimeError:
        ours, theirs = ({name: value.shape for name, value in state.items()} for state in (network.state_dict(), found))
        faults = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise OptionError(
            f"init: {file} must hold the weights of this very network, {key}, of the same options, channels and "
            f"classes; missing, unknown or of another shape: {', '.join(faults[:_NAMED])}{more}"
        ) from None
    return LoadReport(loaded=list(found))
