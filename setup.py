"""Fetch the report's 3D viewer when the project is built; everything else stands in pyproject.toml."""

import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithViewer(build_py):
    """Copy the modules, with the viewer among the package's data where it can be had."""

    def run(self) -> None:
        """Fetch the viewer, then copy; without it a report shows still pictures and says so."""
        subprocess.run([sys.executable, "evaluation/reporting/viewer.py"], check=False)
        super().run()


setup(cmdclass={"build_py": BuildWithViewer})
