"""The viewer in the page: where its code comes from, and the page in a browser."""

import json
import re
import shutil
import stat
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from evaluation import report
from evaluation.cases import evaluate_folder
from evaluation.reporting import viewer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=900,700",
    "--virtual-time-budget=8000",
    "--dump-dom",
]
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
NO_WEBGL = ["--disable-gpu", "--disable-3d-apis"]
FAKE = "window.niivue = undefined; /* </script> */"


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    root = tmp_path_factory.mktemp("viewer")
    for folder, width in (("labelsTr", 8), ("predicted", 7)):
        (root / folder).mkdir()
        for case in range(2):
            volume = np.zeros((16, 16, 16), np.uint8)
            volume[4:12, 4:12, 4 : 4 + width - case] = 1
            nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 2, 1])), root / folder / f"case_{case}.nii.gz")
    evaluate_folder(root / "predicted", root / "labelsTr", root / "scores")
    return root / "scores"


def page_of(scores, output):
    options = ["--output", output, "--workers", "1", "--worst", "1", "--nsd-curve-mm", "0", "--title", "The <title>"]
    assert report.main([str(option) for option in ("--scores", f"m={scores}", *options)]) == 0
    return output / "report.html"


def browse(page, profile, *flags):
    """Open a page; return its elements after the scripts have run, and what the console says."""
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
needs_viewer = pytest.mark.skipif(
    not viewer.SCRIPT.is_file(), reason="the viewer isn't installed (python -m evaluation.reporting.viewer)"
)


@needs_chromium
def test_page_without_webgl_shows_pictures_and_says_why(scores, tmp_path, monkeypatch):
    script = tmp_path / "viewer.js"
    script.write_text(FAKE)
    monkeypatch.setattr(viewer, "SCRIPT", script)
    html, console = browse(page_of(scores, tmp_path / "out"), tmp_path / "profile", *NO_WEBGL)
    assert console == []  # also no request that the page's policy had to stop
    assert re.search(r'<div id="viewer" hidden', html)
    assert re.search(r'<p id="viewer-missing" class="note">\s*This browser has no WebGL2', html)
    assert html.count("<img") >= 4


@needs_chromium
def test_click_on_a_heading_sorts_the_table(scores, tmp_path):
    page = page_of(scores, tmp_path / "out")
    before, end, after = page.read_text().rpartition("</body>")
    page.write_text(f"{before}<script>document.querySelectorAll('#cases th')[1].click()</script>{end}{after}")
    html, console = browse(page, tmp_path / "profile", *NO_WEBGL)
    assert console == []
    cases = re.findall(r"<td[^>]*>(case_\d)</td>", html[html.index('id="cases"') :])
    assert cases == ["case_1", "case_0"]  # ascending Dice; as written case_0 stands first
    assert 'aria-sort="ascending"' in html


@needs_chromium
@needs_viewer
def test_viewer_shows_the_worst_case_without_errors_or_requests(scores, tmp_path):
    html, console = browse(page_of(scores, tmp_path / "out"), tmp_path / "profile", *SOFTWARE_WEBGL)
    if "has no WebGL2" in html and not re.search(r'id="viewer-missing"[^>]*hidden', html):
        pytest.skip("this Chromium draws no WebGL2 without a graphics card")
    assert console == []
    assert re.search(r'id="viewer-missing"[^>]*hidden', html)
    assert not re.search(r'<div id="viewer" hidden', html)
    assert 'data-shown="case_1"' in html


def test_page_holds_the_viewer_with_its_licence(scores, tmp_path, monkeypatch):
    script = tmp_path / "viewer.js"
    script.write_text(FAKE)
    monkeypatch.setattr(viewer, "SCRIPT", script)
    html = page_of(scores, tmp_path / "out").read_text()
    assert "Copyright (c) 2021, Niivue" in html
    assert r"window.niivue = undefined; /* <\/script> */" in html  # can't end the element it stands in
    assert "<title>The &lt;title&gt;</title>" in html


def test_page_without_the_viewer_says_how_to_get_it(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "SCRIPT", tmp_path / "not_there.js")
    html = page_of(scores, tmp_path / "out").read_text()
    assert "python -m evaluation.reporting.viewer" in html
    assert "Copyright (c) 2021, Niivue" not in html


def fake_npm(folder, body):
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!{sys.executable}\n{body}")
    npm.chmod(npm.stat().st_mode | stat.S_IEXEC)


def test_another_package_than_the_pinned_one_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(viewer, "SCRIPT", tmp_path / "page" / "viewer.js")
    answer = json.dumps([{"filename": "other.tgz"}])
    body = f"import sys, pathlib\npathlib.Path('other.tgz').write_bytes(b'other')\nprint('''{answer}''')"
    fake_npm(tmp_path / "bin", body)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert viewer.main() == 1
    assert "other.tgz has the checksum sha512-" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_npm_that_fails_is_quoted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(viewer, "SCRIPT", tmp_path / "viewer.js")
    fake_npm(tmp_path / "bin", "import sys\nsys.exit('npm error no such registry')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert viewer.main() == 1
    assert "npm error no such registry; try again" in capsys.readouterr().err


def test_without_npm_the_advice_is_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(viewer, "SCRIPT", tmp_path / "viewer.js")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert viewer.main() == 1
    assert "npm isn't installed; install Node.js" in capsys.readouterr().err
