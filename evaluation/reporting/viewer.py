"""The 3D viewer in the page: NiiVue, one JavaScript file, from a pinned release of its npm package.

The file isn't part of the source code: installing the project fetches it, if npm is there, and
`python -m evaluation.reporting.viewer` does so later. Without it a report shows still pictures only.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGE, VERSION = "@niivue/niivue", "0.69.0"
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
"""Of the package file, as the registry states it."""

_MOST_SECONDS = 60
_MEMBER = "package/dist/niivue.umd.js"
_FOLDER = Path(__file__).parent / "page"
SCRIPT = _FOLDER / f"niivue-{VERSION}.umd.js"
NOTICE = _FOLDER / "niivue-license.txt"


def viewer_script() -> str | None:
    """Return the viewer's code with its licence notice, None if it isn't installed."""
    if not SCRIPT.is_file():
        return None
    notice = NOTICE.read_text(encoding="utf-8").replace("*/", "* /")
    return f"/* NiiVue {VERSION}\n{notice}*/\n{SCRIPT.read_text(encoding='utf-8')}"


def fetch_viewer() -> Path:
    """Fetch the viewer through npm, unless it is there already.

    Returns:
        Its file.

    Raises:
        RuntimeError: If npm is missing or fails, or the package isn't the one that is pinned.
    """
    if SCRIPT.is_file():
        return SCRIPT
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("the 3D viewer comes from an npm package, and npm isn't installed; install Node.js")
    with TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--json", "--pack-destination", folder, "--fetch-retries=1"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=True, cwd=folder
            )
            archive = Path(folder) / json.loads(done.stdout)[0]["filename"]
            content = _checked(archive)
        except (OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError, tarfile.TarError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            detail = " ".join(line for line in lines if "log of this run" not in line)[:300]
            raise RuntimeError(
                f"npm must deliver {PACKAGE} {VERSION}, got: {detail}; try again with a connection to its registry"
            ) from error
    part = SCRIPT.with_name(f".{SCRIPT.name}.part")
    part.write_bytes(content)
    part.replace(SCRIPT)
    return SCRIPT


def _checked(archive: Path) -> bytes:
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise ValueError(f"{archive.name} has the checksum {found}, not {INTEGRITY}")
    with tarfile.open(archive) as package:
        member = package.extractfile(_MEMBER)
        if member is None:
            raise ValueError(f"{archive.name} has no {_MEMBER}")
        return member.read()


def main() -> int:
    """Fetch the viewer and say where it is.

    Returns:
        Exit code: 0 it is there, 1 it can't be had.
    """
    try:
        print(fetch_viewer())
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
