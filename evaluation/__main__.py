"""All commands in one: `medseg-evaluate <command>`, or `python -m evaluation <command>`."""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from .command import EXIT_OK, EXIT_UNUSABLE, program_name, until_reader_leaves

COMMANDS = {
    "test3d": "score whole images against their references",
    "test2d": "score each slice of each image",
    "compare": "compare methods on the same cases",
    "report": "make a page with figures of scores",
    "threshold": "find the threshold of the probabilities that scores best",
}
"""Commands by the name of their module, whose `main` takes the arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first.

    Args:
        argv: Its name and its arguments; None for those of the process. Options without a name are those of test3d.

    Returns:
        Exit code of the command; 2 if there is no such command.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        with until_reader_leaves():
            print(_help())
        return EXIT_OK if arguments else EXIT_UNUSABLE
    name = "test3d" if arguments[0].startswith("-") else arguments.pop(0)
    if name not in COMMANDS:
        similar = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        print(f"error: command must be one of {', '.join(COMMANDS)}, got {name!r}{hint}", file=sys.stderr)
        return EXIT_UNUSABLE
    return import_module(f".{name}", __package__).main(arguments)


def _help() -> str:
    program = program_name()
    lines = "\n".join(f"  {name:11}{purpose}" for name, purpose in COMMANDS.items())
    return f"usage: {program} <command> [options]\n\ncommands:\n{lines}\n\noptions: {program} <command> --help"


if __name__ == "__main__":
    raise SystemExit(main())
