"""The reports in headless Chromium: drawn, quiet, and usable by keyboard and on a phone."""

import json

import browser
import numpy as np
import pytest
from test_run import outcome

from jdlopt.report import run, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium to open reports in"),
]


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as page:
        yield page


@pytest.fixture(params=["study", "trade-offs", "images", "values", "wide table"])
def report(request, make_study, tmp_path):
    """The path of a report, of each kind."""
    if request.param == "study":
        return write_report(make_study(30))
    if request.param == "trade-offs":
        return write_report(make_study(24, objectives=3))
    if request.param == "wide table":
        names = tuple(f"what sensor {i} says" for i in range(60))
        found = outcome((60,), 3, names=["up", "down", "left"], features=names)
    else:
        found = outcome((8, 8, 1), 10) if request.param == "images" else outcome((5,))
    config = {"data": {"source": "made"}, "model": {"name": "mlp"}}
    rows = [{"step": s, "train/loss": 1 / s} for s in range(1, 9)]
    path = tmp_path / "report.html"
    path.write_text(run.make_page(tmp_path, config, None, rows, found), "utf-8")
    return path


def count(page, selector):
    return page.run(f"document.querySelectorAll({json.dumps(selector)}).length")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_figures_are_drawn_without_a_complaint(chromium, report, theme):
    chromium.open(report, fragment=f"#{theme}")
    assert chromium.complaints() == []
    assert chromium.run("document.documentElement.dataset.theme") == theme
    figures = count(chromium, ".plot")
    assert figures > 2
    assert int(chromium.run("document.documentElement.dataset.drawn")) == figures
    assert count(chromium, ".plot svg.main-svg") >= figures
    # something is drawn in each
    empty = "[...document.querySelectorAll('.plot')].filter(p => !p.querySelector('.trace')).length"
    assert chromium.run(empty.replace(".trace", ".trace, .hm, .bars")) == 0


def test_at_1200_pixels_nothing_is_cut_off(chromium, report):
    chromium.open(report, width=1200)
    assert chromium.run("document.documentElement.scrollWidth") <= 1200
    hidden = """[...document.querySelectorAll('main .scroll, main pre:not(.long)')]
      .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"""
    assert chromium.run(hidden) == []


def test_on_a_phone_nothing_sticks_out(chromium, report):
    chromium.open(report, width=390, height=844)
    assert chromium.run("innerWidth") == 390
    assert chromium.run("document.documentElement.scrollWidth") <= 390
    wide = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg')
      && !e.matches('.hidden') && e.getBoundingClientRect().right > 391).map(e => e.outerHTML)"""
    assert chromium.run(wide) == []


def test_the_keyboard_reaches_the_content_and_the_theme(chromium, report):
    chromium.open(report, fragment="#light")
    chromium.press("Tab")
    assert chromium.run("document.activeElement.className") == "skip"
    assert chromium.run("document.activeElement.getBoundingClientRect().left") >= 0
    for _ in range(30):
        chromium.press("Tab")
        if chromium.run("document.activeElement.id") == "theme":
            break
    assert chromium.run("document.activeElement.id") == "theme"
    style = "getComputedStyle(document.activeElement)"
    assert chromium.run(f"{style}.outlineStyle") == "solid"
    assert float(chromium.run(f"{style}.outlineWidth").removesuffix("px")) >= 2
    for key, theme in ((" ", "dark"), ("Enter", "light")):
        chromium.press(key)
        assert chromium.run("document.documentElement.dataset.theme") == theme
        pressed = chromium.run("document.activeElement.getAttribute('aria-pressed')")
        assert pressed == ("true" if theme == "dark" else "false")
    assert chromium.complaints() == []


def test_the_copied_config_is_the_trials(chromium, make_study):
    path = write_report(make_study(24))
    chromium.open(path)
    chromium.call("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    chromium.run("window.took = []; navigator.clipboard.writeText = async t => took.push(t)")
    button = "document.querySelector('table button[data-copy^=config]')"
    chromium.run(f"{button}.focus()")
    chromium.press("Enter")
    chromium.run("new Promise(done => setTimeout(done, 100))")
    [text] = chromium.run("took")
    best = json.loads((path.parent / "best_config.json").read_text())
    assert json.loads(text) == best
    assert chromium.run(f"{button}.textContent") == "Copied"
    assert chromium.run("document.getElementById('copied').textContent") == "Copied"
    assert chromium.run(f"document.activeElement === {button}")


def test_commands_are_copied_whole_under_the_content_policy(chromium, report):
    chromium.open(report)
    chromium.run("window.took = []; navigator.clipboard.writeText = async t => took.push(t)")
    shown = chromium.run("[...document.querySelectorAll('pre.command')].map(e => e.textContent)")
    chromium.run("document.querySelectorAll('button[data-copy^=command]').forEach(b => b.click())")
    chromium.run("new Promise(done => setTimeout(done, 100))")
    assert chromium.run("took") == shown and all(one.startswith("jdlopt ") for one in shown)
    # a long path is broken, and nothing of it hidden
    cut = "[...document.querySelectorAll('pre.command')].filter(e => e.scrollWidth > e.clientWidth)"
    assert chromium.run(f"{cut}.length") == 0
    assert chromium.complaints() == []


def test_without_a_clipboard_the_old_way_copies(chromium, make_study):
    chromium.open(write_report(make_study(24)))
    chromium.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    chromium.run(
        "window.took = []; document.addEventListener('copy', "
        "() => took.push(document.activeElement.value))"
    )
    button = "document.querySelector('table button[data-copy]')"
    chromium.run(f"{button}.click()")
    chromium.run("new Promise(done => setTimeout(done, 100))")
    assert len(chromium.run("took")) == 1
    assert chromium.run(f"{button}.textContent") == "Copied"


def test_what_is_in_a_study_is_not_run(chromium, make_study):
    chromium.open(write_report(make_study(24)))
    assert count(chromium, "img") == 0
    # the names are shown in the figures as they are
    ticks = "document.querySelector('#effect-2').textContent"
    assert "</script><img" in chromium.run(ticks)


def test_both_themes_are_drawn_in_other_colours(chromium, make_study, tmp_path):
    from PIL import Image

    path = write_report(make_study(24))
    means = []
    for theme in ("light", "dark"):
        chromium.open(path, fragment=f"#{theme}")
        chromium.screenshot(tmp_path / f"{theme}.png")
        means.append(np.asarray(Image.open(tmp_path / f"{theme}.png").convert("L")).mean())
    assert means[0] > 200 and means[1] < 60
