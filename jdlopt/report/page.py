"""Templates filled with data: one HTML file that loads nothing and runs nothing of its data."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

Spec = dict[str, Any]
"""A part of what Plotly draws from: a trace, an axis, a layout."""
MARKUP = ("hovertemplate", "texttemplate")
"""The strings of a figure in which Plotly's markup is meant; none comes from outside."""


@dataclass(frozen=True)
class Figure:
    """A plot, its caption, and in words what it shows, for those who can't see it.

    Attributes:
      name: the element's id; letters, digits and dashes.
      caption: what stands under it.
      alternative: what it shows.
      data, layout: Plotly's; names and labels in them are text, not Plotly's markup.
      height: in pixels.
      least_width: in pixels; a narrower screen scrolls.
    """

    name: str
    caption: str
    alternative: str
    data: Sequence[Spec]
    layout: Spec
    height: int = 320
    least_width: int = 0

    def spec(self) -> Spec:
        """Returns what the page's script draws from; text in it is escaped for Plotly."""
        margin = {"l": 60, "r": 15, "t": 15, "b": 45}
        base = {"margin": margin, "height": self.height, "showlegend": False}
        made = {"data": list(self.data), "layout": {**base, **self.layout}}
        return {**_as_text(made), "least_width": self.least_width}


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; numbers are formatted by `number`.

    Attributes:
      caption: what stands above it.
      header: a title a column.
      rows: cells: numbers, text, or pairs of one of them and what stands small below it.
      wide: the columns of running text.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    wide: Container[int] = ()


def number(value: object) -> str:
    """Returns a number as a reader wants it: 4 significant digits, thousands separated.

    Text stays as it is; what is missing or not finite is a dash.

    Example:
      >>> number(0.123456), number(1234567), number(None)
      ('0.1235', '1,234,567', '–')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def sentence(value: object) -> str:
    """Returns text with a capital first letter, the rest as it is."""
    words = str(value)
    return words[:1].upper() + words[1:]


def as_json(value: object, **options: object) -> str:
    """Returns JSON without NaN and infinities, and with 5 digits of each number."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.5g}")
    return value


def _as_text(value: object) -> Any:
    """Escapes every string of a figure, where ``<b>`` would be markup, as it is in HTML."""
    if isinstance(value, Mapping):
        return {k: item if k in MARKUP else _as_text(item) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return value


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Returns the templates' environment: all is escaped, and what is missing is an error."""
    made = Environment(
        loader=PackageLoader("jdlopt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["sentence"] = sentence
    made.policies["json.dumps_function"] = as_json
    return made


@lru_cache(maxsize=1)
def assets() -> dict[str, str]:
    """Returns the page's style and its scripts, Plotly first, as they are put into it."""
    from plotly.offline import get_plotlyjs

    templates = environment()
    assert templates.loader is not None
    files = [templates.loader.get_source(templates, f"report.{kind}")[0] for kind in ("css", "js")]
    return {"style": files[0], "plotly": get_plotlyjs(), "script": files[1]}


def policy(found: Mapping[str, str]) -> str:
    """Returns the content policy under which these assets, and nothing else, are used.

    A script is let in by its hash. Plotly sets styles of the elements that it makes, so that those
    are not hashed: a style runs nothing, and nothing can be loaded by one.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(found[name].encode()).digest()).decode()}'"
        for name in ("plotly", "script")
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def render(template: str, *, title: str, lead: str, footer: str, **data: object) -> str:
    """Returns a whole page.

    Args:
      template: one of ``templates/``, without its suffix.
      title, lead, footer: text.
      data: what the template shows.
    """
    found = assets()
    return environment().get_template(f"{template}.html").render(
        title=title,
        lead=lead,
        footer=footer,
        policy=policy(found),
        contents=[],
        **{name: Markup(source) for name, source in found.items()},
        **data,
    )  # fmt: skip
