"""Score a folder of predictions, slice by slice: `python -m evaluation.test2d`."""

from collections.abc import Sequence

from .command_line import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit code: 0 all scored, 1 some cases couldn't be, 2 nothing could be done, 130 interrupted.
    """
    description = "Score each slice of each image against its reference: overlap and surface distances in 2D."
    return run("test2d", description, argv, slices=True)


if __name__ == "__main__":
    raise SystemExit(main())
