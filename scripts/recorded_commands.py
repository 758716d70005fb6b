"""Run a module's command within this process, and keep what was run."""

import runpy
import shlex
import sys
from pathlib import Path


class RecordedCommands:
    """Commands as a reader would type them.

    Within one process torch and MONAI are imported once, which for runs of a minute is half of the time.

    Args:
        places: Folders, and what is written instead of each.
    """

    def __init__(self, places: dict[Path, str]) -> None:
        self.places = places
        self.commands: list[str] = []

    def run(self, module: str, *words: object) -> None:
        """Run `python -m module words`.

        Args:
            module: Full name of the module.
            *words: Arguments.

        Raises:
            SystemExit: If the command ends with another exit code than 0.
        """
        shown = shlex.join(["python", "-m", module, *map(str, words)])
        for place, name in self.places.items():
            shown = shown.replace(str(place), name)
        self.commands.append(shown)
        print(f"$ {shown}", flush=True)
        sys.argv = [module, *map(str, words)]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise

    def taken(self) -> list[str]:
        """Return the commands since the last call."""
        commands, self.commands = self.commands, []
        return commands
