"""The page: one HTML file with everything inside."""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..summary import versions
from .inputs import ReportInputs
from .sections import Section
from .style import PNG_DPI, Picture, method_color
from .viewer import viewer_script

_FOLDER = Path(__file__).parent / "page"
_SCREEN_DPI = 96
_NO_WEBGL = "This browser has no WebGL2, which the interactive view needs; still pictures follow."
_NO_VIEWER = (
    "The interactive view isn't part of this report, because its viewer wasn't installed (python -m "
    "evaluation.reporting.viewer fetches it); still pictures follow."
)


def render_page(
    title: str,
    inputs: ReportInputs,
    sections: Sequence[Section],
    volumes: Sequence[Mapping[str, Any]],
    warnings: Sequence[str],
) -> str:
    """Put the page together.

    Args:
        title: Heading.
        inputs: The scores.
        sections: Sections in their order.
        volumes: Cases for the viewer; it is left out without any.
        warnings: What a reader should know.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    viewer = viewer_script() if volumes else None
    return environment.get_template("report.html").render(
        title=title,
        lead=_lead(inputs),
        methods=[_method(inputs, index) for index in range(len(inputs.methods))],
        sections=[{"id": "summary", "title": "Summary"}, *(_plain(section) for section in sections)],
        warnings=warnings,
        volumes=_script_data(volumes) if volumes else None,
        viewer=_script(viewer or ""),
        viewer_missing=_NO_WEBGL if viewer else _NO_VIEWER,
        css=Markup(_text("report.css")),
        script=_script(_text("report.js")),
        footer=f"Made on {date.today():%Y-%m-%d} with " + ", ".join(f"{k} {v}" for k, v in versions().items()) + ".",
    )


def _lead(inputs: ReportInputs) -> str:
    cases = {case for method in inputs.methods for case in method.stored.cases}
    n_labels = len([label for label in inputs.labels if label != "0"])
    methods = f"{len(inputs.methods)} methods" if len(inputs.methods) > 1 else inputs.methods[0].name
    return f"{methods} on {len(cases)} cases with {n_labels} label{'s' if n_labels != 1 else ''}."


def _method(inputs: ReportInputs, index: int) -> dict[str, Any]:
    method = inputs.methods[index]
    return {
        "name": method.name,
        "color": method_color(index),
        "n_cases": method.summary["n_cases"],
        "failures": method.summary["failures"],
        "unpredicted": len(method.summary["references_without_prediction"]),
        "source": method.summary["options"]["predictions"],
    }


def _plain(section: Section) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "text": section.text,
        "tables": section.tables,
        "pictures": [_picture(picture) for picture in section.pictures],
        "definitions": section.definitions,
    }


def _picture(picture: Picture) -> dict[str, Any]:
    kind, data = ("svg+xml", picture.svg) if picture.svg else ("png", picture.png)
    (width,) = struct.unpack(">I", picture.png[16:20])  # of the PNG's header
    return {
        "title": picture.title,
        "caption": picture.caption,
        "uri": f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}",
        "width": round(width / PNG_DPI * _SCREEN_DPI),
    }


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _script(code: str) -> Markup:
    """Return code that can't end the element it stands in."""
    return Markup(code.replace("</script", r"<\/script"))


def _script_data(value: Any) -> Markup:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", r"\u003c"))
