"""What all commands have in common: the name they were started by, their help, their errors and exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import EvaluationError

SCRIPT = "medseg-evaluate"
EXIT_OK, EXIT_INCOMPLETE, EXIT_UNUSABLE, EXIT_INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """One of the commands, `python -m evaluation.<name>`.

    Attributes:
        name: Name of its module.
        description: What it does, a sentence.
        results: What it leaves behind and what its exit codes mean.
        examples: Arguments that make sense.
        interrupted: What a user who pressed Ctrl-C should know.
    """

    name: str
    description: str
    results: str
    examples: tuple[str, ...]
    interrupted: str

    def run(
        self,
        argv: Sequence[str] | None,
        add_options: Callable[[argparse.ArgumentParser], None],
        action: Callable[[argparse.Namespace], int],
    ) -> int:
        """Parse a command line and act on it.

        Args:
            argv: Arguments without the program's name; None for those of the process.
            add_options: Gives the parser its options.
            action: What to do with them; returns the exit code.

        Returns:
            Exit code: that of the action, 2 if nothing could be done, 130 if interrupted.
        """
        arguments = sys.argv[1:] if argv is None else argv
        if not arguments:
            print(self._hint(), file=sys.stderr)
            return EXIT_UNUSABLE
        parser = self._parser()
        add_options(parser)
        try:
            return action(parser.parse_args(arguments))
        except SystemExit as stop:
            return int(stop.code or 0)
        except EvaluationError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_UNUSABLE
        except KeyboardInterrupt:
            print(f"interrupted: {self.interrupted}", file=sys.stderr)
            return EXIT_INTERRUPTED

    def _parser(self) -> argparse.ArgumentParser:
        return argparse.ArgumentParser(
            prog=program_name(self.name),
            description=self.description,
            epilog=f"{self.results}\n\n{self._examples()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def _hint(self) -> str:
        return f"{self.description}\n\n{self._examples()}\nall options:\n  {program_name(self.name)} --help"

    def _examples(self) -> str:
        lines = "".join(f"  {program_name(self.name)} {example}\n" for example in self.examples)
        return f"example{'s' if len(self.examples) > 1 else ''}:\n{lines}"


def program_name(command: str = "") -> str:
    """Return what was typed to start a command.

    Args:
        command: Its name; none for the command that starts the others.

    Returns:
        `medseg-evaluate compare`, `python -m evaluation compare` or `python -m evaluation.compare`.
    """
    started = Path(sys.argv[0])
    if started.stem == SCRIPT:
        return f"{SCRIPT} {command}".strip()
    if not command or started.parts[-2:] == (__package__, "__main__.py"):
        return f"python -m {__package__} {command}".strip()
    return f"python -m {__package__}.{command}"


@contextmanager
def until_reader_leaves() -> Iterator[None]:
    """Print in peace: a reader of standard output that has seen enough, such as `head`, is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # Python would complain again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
