"""One HTML page that holds everything: no network, light and dark, for keyboards and readers."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

STYLE = """
:root { color-scheme: light; --back: #fcfcfa; --card: #ffffff; --text: #1d1f21; --soft: #5c6166;
  --line: #d9d9d4; --accent: #1f5fa8; --serious: #a32638; --warning: #9a5b00; --good: #2c6e49;
  --note: #5c6166; }
:root[data-theme="dark"] { color-scheme: dark; --back: #141618; --card: #1b1e21; --text: #e6e6e3;
  --soft: #a3a8ad; --line: #33373b; --accent: #7fb2ec; --serious: #f08a97; --warning: #e3a74f;
  --good: #7cc49a; --note: #a3a8ad; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main, header.top, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: .8rem 0 0;
  padding: 0; font-size: .92rem; }
header.top { padding-top: 2.5rem; display: flex; flex-wrap: wrap; gap: 1rem;
  justify-content: space-between; align-items: start; }
header.top > div { flex: 1 1 18rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3rem 0 .8rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.lead { color: var(--soft); }
a { color: var(--accent); }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .5rem; z-index: 9; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
button { font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .7rem; cursor: pointer; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem;
  margin: 1.6rem 0; padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
ul.readings { list-style: none; padding: 0; margin: 0; display: grid; gap: .6rem; }
ul.readings li { background: var(--card); border: 1px solid var(--line);
  border-left: .3rem solid var(--note); border-radius: .4rem; padding: .6rem .9rem; }
ul.readings li.serious { border-left-color: var(--serious); }
ul.readings li.warning { border-left-color: var(--warning); }
ul.readings li.good { border-left-color: var(--good); }
ul.readings .level { font-size: .8rem; color: var(--soft); }
ul.readings .hint { color: var(--soft); }
.scroll { overflow-x: auto; position: relative; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th.text, td.text { text-align: left; white-space: normal; min-width: 14rem; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
details summary { cursor: pointer; color: var(--accent); }
pre { margin: .4rem 0; padding: .6rem .8rem; background: var(--card); font-size: .85rem;
  border: 1px solid var(--line); border-radius: .4rem; overflow-x: auto; }
pre.long { max-height: 20rem; overflow-y: auto; }
button.copy { padding: .1rem .6rem; font-size: .85rem; min-height: 1.75rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem; min-width: 0; }
figcaption { font-size: .9rem; color: var(--soft); }
figcaption { overflow-wrap: anywhere; }
.plot { width: 100%; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
.wide { margin-bottom: 1rem; }
.pictures { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.pictures img { width: 100%; height: 9rem; object-fit: contain; image-rendering: pixelated;
  border-radius: .3rem; }
.pictures img.smooth { image-rendering: auto; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
footer { color: var(--soft); font-size: .85rem; padding-bottom: 3rem; margin-top: 3rem; }
@media (max-width: 30rem) { h1 { font-size: 1.5rem; } .grid { grid-template-columns: 1fr; }
  .facts { grid-template-columns: 1fr 1fr; } .facts dd { font-size: 1.15rem; } }
@media print { button { display: none; } }
"""

SCRIPT = """
(function () {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const asked = location.hash === "#dark" ? "dark" : location.hash === "#light" ? "light" : null;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = asked || (dark.matches ? "dark" : "light");
  function colours() {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(name).trim();
    return { text: of("--text"), card: of("--card"), line: of("--line") };
  }
  function layout(own) {
    const c = colours();
    const axis = { gridcolor: c.line, zerolinecolor: c.line, linecolor: c.line };
    const made = Object.assign({}, own, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: c.text }, autosize: true,
      hoverlabel: { bgcolor: c.card, bordercolor: c.line, font: { color: c.text } },
      dragmode: false,
    });
    (made.annotations || []).forEach(function (note) { note.bgcolor = c.card; });
    Object.keys(made).forEach(function (key) {
      if (/^[xy]axis/.test(key)) { made[key] = Object.assign({}, axis, made[key]); }
    });
    return made;
  }
  const specs = Array.from(document.querySelectorAll("script[data-plot]")).map(function (element) {
    return [document.getElementById(element.dataset.plot), JSON.parse(element.textContent)];
  });
  const options = { displaylogo: false, responsive: true, displayModeBar: false, };
  function draw() {
    root.dataset.theme = theme;
    button.setAttribute("aria-pressed", theme === "dark");
    specs.forEach(function ([place, spec]) {
      Plotly.react(place, spec.data, layout(spec.layout), options);
    });
    root.dataset.drawn = specs.length;
  }
  button.addEventListener("click", function () {
    theme = theme === "dark" ? "light" : "dark";
    draw();
  });
  dark.addEventListener("change", function (event) {
    theme = event.matches ? "dark" : "light";
    draw();
  });
  const told = document.getElementById("told");
  function copied(text) {
    if (navigator.clipboard && window.isSecureContext) {
      return navigator.clipboard.writeText(text);
    }
    const area = document.createElement("textarea");  // a page that came over plain HTTP
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done ? Promise.resolve() : Promise.reject(new Error("refused"));
  }
  document.querySelectorAll("button[data-copy]").forEach(function (element) {
    const words = element.textContent;
    element.addEventListener("click", function () {
      const text = document.getElementById(element.dataset.copy).textContent;
      copied(text).then(function () { return "Copied"; }, function () { return "Not copied"; })
        .then(function (answer) {
          element.focus();
          element.textContent = told.textContent = answer;
          setTimeout(function () { element.textContent = words; told.textContent = ""; }, 2000);
        });
    });
  });
  draw();
})();
"""


def text(value: Any) -> str:
    """Returns anything from outside as text that HTML can hold."""
    return html.escape(str(value), quote=True)


def number(value: Any) -> str:
    """Returns a number as a reader wants it: 4 significant digits, thousands separated."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def as_script(value: Any) -> str:
    r"""Returns JSON that may stand in a script element: nothing in it can end the element.

    Example:
      >>> as_script({"name": "</script>"})
      '{"name": "\\u003c/script\\u003e"}'
    """
    made = json.dumps(_plain(value), allow_nan=False)
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.5g}")
    return value


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], first_is_name: bool = True
) -> str:
    """Returns a table; cells are HTML already, captions and headers are text."""
    rows = list(rows)
    words = [cell.startswith('<td class="text"') for cell in rows[0]] if rows else []
    words += [False] * (len(header) - len(words))
    head = "".join(
        f'<th scope="col"{" class=text" if is_text else ""}>{text(name)}</th>'
        for name, is_text in zip(header, words)
    )
    body = []
    for row in rows:
        cells = []
        for index, cell in enumerate(row):
            if index == 0 and first_is_name:
                cells.append(f'<th scope="row">{cell}</th>')
            else:
                cells.append(cell if cell.startswith("<td") else f"<td>{cell}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def figure(
    name: str,
    caption: str,
    alternative: str,
    data: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    height: int = 320,
    least_width: int = 0,
) -> str:
    """Returns a plot with its caption, and in words what it shows, for those who can't see it.

    Args:
      name: the element's id; letters, digits and dashes.
      caption: what stands under it.
      alternative: what it shows.
      data, layout: Plotly's.
      height: in pixels.
      least_width: in pixels; a narrower screen scrolls.
    """
    full = {
        "margin": {"l": 60, "r": 15, "t": 15, "b": 45},
        "height": height,
        "showlegend": False,
        **layout,
    }
    least = f";min-width:{least_width}px" if least_width else ""
    plot = (
        f'<div class="plot" id="{name}" role="img" aria-label="{text(alternative)}" '
        f'style="height:{height}px{least}"></div>'
    )
    if least_width:
        plot = f'<div class="scroll" tabindex="0" role="group" aria-label="Plot">{plot}</div>'
    return (
        f"<figure>{plot}<figcaption>{text(caption)}</figcaption>"
        f'<script type="application/json" data-plot="{name}">'
        f"{as_script({'data': list(data), 'layout': full})}</script></figure>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns the headline numbers; values are HTML already."""
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{cells}</dl>'


def section(name: str, title: str, *content: str) -> str:
    """Returns a part of the page under a heading."""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{text(title)}</h2>'
        f"{''.join(content)}</section>"
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def page(title: str, lead: str, content: Sequence[str], footer: str) -> str:
    """Returns the whole document; ``title``, ``lead`` and ``footer`` are text."""
    policy = (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    headings = re.findall(r'<h2 id="([\w-]+)">(.*?)</h2>', "".join(content))
    links = "".join(f'<li><a href="#{name}">{words}</a></li>' for name, words in headings)
    return f"""<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top"><div><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>
<nav aria-label="Contents"><ul>{links}</ul></nav></div>
<button id="theme" type="button" aria-pressed="false">Dark theme</button></header>
<main id="content" tabindex="-1">
<noscript><p>The figures are drawn by JavaScript, which is off here; the tables are whole.</p>
</noscript>
{"".join(content)}
<p id="told" role="status" class="hidden"></p>
</main>
<footer><p>{text(footer)}</p></footer>
<script>{_plotly()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
