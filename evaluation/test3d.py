"""Score a folder of predictions, whole images: `python -m evaluation.test3d`."""

from collections.abc import Sequence

from .command_line import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit code: 0 all scored, 1 some cases couldn't be, 2 nothing could be done, 130 interrupted.
    """
    description = "Score whole images against their references: overlap and surface distances, per case and label."
    return run("test3d", description, argv, slices=False)


if __name__ == "__main__":
    raise SystemExit(main())
