"""Guard a bundle's command line: refuse options that the configuration doesn't know, and print readable errors."""

import ast
import difflib
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import OptionError, UserError

_MONAI_ARGUMENTS = {
    "args_file", "config_file", "final_id", "init_id", "logging_file", "meta_file", "run_id", "tracking",
}  # fmt: skip
_LEAST = {
    "max_epochs": 1, "iterations_per_epoch": 1, "batch_size": 1, "accumulation_steps": 1, "val_interval": 1,
    "early_stop_patience": 1, "val_patches": 1, "patch_depth": 1, "base_channels": 1, "base_epochs": 1, "lora_rank": 1,
    "warmup_iterations": 0, "num_workers": 0,
}  # fmt: skip
"""Smallest values of options that are whole numbers."""
_TRACKING_ARGUMENTS = {"experiment_name", "run_name", "save_execute_config", "tracking_uri"}


def guard_command_line(argv: list[str] | None = None) -> None:
    """Refuse unknown options of a running `monai.bundle run`, and make its errors readable.

    MONAI takes `--epohcs 1` for a new, unused entry of the configuration and trains on with the default.
    This stands first in every bundle's `run`. It does nothing where another program runs the workflow.

    Args:
        argv: Command line; that of this process if not given.

    Raises:
        OptionError: Naming the option, what it may have meant, and all top-level options; or the whole number that
            an option must be at least.
    """
    arguments = sys.argv if argv is None else argv
    if argv is None:
        if not Path(arguments[0]).as_posix().endswith("monai/bundle/__main__.py"):
            return
        sys.excepthook = _print_user_errors
    options = _parse(arguments[1:])
    allowed = _config_keys(options) | _MONAI_ARGUMENTS
    if "tracking" in options:
        allowed |= _TRACKING_ARGUMENTS
    for name, value in options.items():
        top = name.lstrip("+").replace("#", "::").split("::")[0]
        if top not in allowed:
            close = difflib.get_close_matches(top, allowed, n=1)
            hint = f"did you mean --{close[0]}? " if close else ""
            raise OptionError(f"--{name}: unknown option; {hint}Options: {', '.join(sorted(allowed))}")
        if name in _LEAST and not _is_whole_number(value, _LEAST[name]):
            raise OptionError(f"--{name}: need a whole number >= {_LEAST[name]}, got {value}")


def _parse(arguments: list[str]) -> dict[str, str]:
    """Read `--key value`, `--key=value` and `-key value` as Fire does; hyphens become underscores."""
    options: dict[str, str] = {}
    for position, token in enumerate(arguments):
        if (
            not token.startswith("-")
            or len(token.lstrip("-")) < 2
            or not token.lstrip("-")[0].isalpha() | (token.lstrip("-")[0] in "+_")
        ):
            continue
        key, has_value, value = token.lstrip("-").partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        options[key.replace("-", "_")] = value if has_value else following
    return options


def _is_whole_number(value: str, least: int) -> bool:
    """Return whether a value can be a whole number of this size; references and expressions can."""
    if value.startswith(("$", "@", "%")):
        return True
    try:
        return int(value) >= least
    except ValueError:
        return False


def _config_keys(options: dict[str, str]) -> set[str]:
    keys: set[str] = set()
    files = _file_list(options.get("config_file", "")) + _file_list(options.get("meta_file", ""))
    if args_file := options.get("args_file"):
        content = _read(args_file)
        keys |= content.keys()
        files += _file_list(content.get("config_file", ""))
    for file in files:
        keys |= {key.lstrip("+") for key in _read(file)}
    return keys


def _file_list(value: Any) -> list[str]:
    if isinstance(value, list):
        return value
    text = str(value).strip()
    if text.startswith(("[", "(")):
        try:
            return [str(item) for item in ast.literal_eval(text)]
        except (ValueError, SyntaxError):  # Fire takes [a.json,b.json] without quotes too
            return [item.strip(" '\"") for item in text.strip("[]()").split(",")]
    return [text] if text else []


def _read(file: str) -> dict[str, Any]:
    path = Path(file)
    if path.suffix in (".yaml", ".yml"):
        import yaml

        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return json.loads(path.read_text(encoding="utf-8"))


def _print_user_errors(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError | KeyboardInterrupt) and not _refuses_a_value(cause):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, KeyboardInterrupt):
        print("interrupted; the same command continues from the last finished epoch or case", file=sys.stderr)
    elif cause is not None:
        print(f"error: {cause}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _refuses_a_value(error: BaseException) -> bool:
    """Return whether an error is what one of this project's networks says of an option's value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return type(error) is ValueError and not {"sam_lora", "networks"}.isdisjoint(module.split("."))
