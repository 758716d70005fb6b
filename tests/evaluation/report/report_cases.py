"""Cases, scores and pages that the tests of the report share."""

from html.parser import HTMLParser

import nibabel as nib
import numpy as np

from evaluation import report
from evaluation.reporting.inputs import read_method

LABELS = {"background": 0, "left & <right>": 1, "cord_1": 2}
SHAPE = (20, 24, 28)
SPACING = (2.0, 1.0, 1.5)


class Page(HTMLParser):
    """Collects what a test asks of the page."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.ids, self.texts, self.scripts, self.headings = [], [], [], {}, []
        self._open = None
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href", "action", "data") if attributes.get(name)]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self._open = (tag, attributes.get("id"))

    def handle_data(self, data):
        tag, name = self._open or ("", None)
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        elif tag == "h2":
            self.headings += [data.strip()] if data.strip() else []
        elif tag != "style":
            self.texts.append(data)


def labelled(case, errors=0, miss=False):
    """Return a reference, or a prediction of it with a number of errors in each label."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[4:12, 5 + case % 3 : 14, 4:12] = 1
    volume[6:16, 8:12, 18:22] = 2
    if errors:
        volume[4:12, 5 + case % 3, 4 : 4 + min(errors, 8)] = 0
        volume[3, 8:12, 18 : 18 + min(errors, 4)] = 2
    if miss:
        volume[volume == 2] = 0
    return volume


def write(folder, name, array, affine=None):
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING[::-1], 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")


def run(output, *options):
    return report.main([*map(str, options), "--output", str(output), "--resamples", "100", "--workers", "1"])


def inputs_of(scored, **methods):
    from evaluation.reporting.inputs import ReportInputs

    read = [read_method(name, folder) for name, folder in methods.items()]
    names = {"1": "one", "2": "two", "foreground": "mean over labels"}
    return ReportInputs(read, ["1", "2", "foreground"], names, ["dice"], [])
