"""The page: what comes from outside stays text, and its colours can be read."""

import base64
import hashlib
import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from outline import Outline

from jdlopt.report import figures, page

LEAST_TEXT, LEAST_GRAPHIC = 4.5, 3.0


def luminance(colour):
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """As WCAG 2 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def theme(selector):
    block = re.search(re.escape(selector) + r" \{(.*?)\}", page.assets()["style"], re.DOTALL)
    assert block is not None
    return dict(re.findall(r"(--\w+): (#[0-9a-f]{6})", block[1]))


@pytest.mark.parametrize("selector", [":root", ':root[data-theme="dark"]'])
def test_every_colour_can_be_read_on_every_ground(selector):
    colours = theme(selector)
    for ground in ("--back", "--card"):
        for name in ("--text", "--soft", "--accent", "--warning", "--good", "--note"):
            assert contrast(colours[name], colours[ground]) >= LEAST_TEXT, name
        for colour in (*figures.COLOURS, figures.GREY):
            assert contrast(colour, colours[ground]) >= LEAST_GRAPHIC, colour


def test_contrast_is_wcags():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def rendered(template, value):
    return page.environment().from_string(template).render(value=value)


@given(st.text())
def test_any_text_survives_html(words):
    made = Outline(rendered("<p title='{{ value }}'>{{ value }}</p>", words))
    assert [tag for tag, _ in made.elements] == ["p"]
    clean = words.replace("\r\n", "\n").replace("\r", "\n")
    assert made.words.replace("\r\n", "\n").replace("\r", "\n") == clean


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json)
def test_any_json_survives_a_script_element(value):
    text = rendered("{{ value | tojson }}", value)
    assert not set("<>&'") & set(text)
    assert json.loads(text) == value


def test_numbers_that_json_lacks_become_null():
    found = rendered("{{ value | tojson }}", [float("nan"), float("inf"), 1.0])
    assert found == "[null, null, 1.0]"


def test_what_a_template_does_not_get_is_an_error():
    with pytest.raises(UndefinedError):
        rendered("{{ other }}", 1)


@given(st.text(), st.text())
def test_any_text_in_a_figure_is_text_to_plotly_too(one, other):
    axis = {"title": {"text": one}, "ticktext": [other, 1]}
    trace = {"name": one, "text": [other], "hovertemplate": "%{text}<extra></extra>"}
    spec = page.Figure("a", "", "", [trace], {"xaxis": axis}).spec()
    drawn = spec["data"][0]
    found = [drawn["name"], *drawn["text"], spec["layout"]["xaxis"]["ticktext"][0]]
    assert found == [html.escape(text, quote=False) for text in (one, other, other)]
    assert not any(set("<>") & set(text) for text in found)
    assert spec["data"][0]["hovertemplate"] == trace["hovertemplate"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (1234567, "1,234,567"), (12345.6, "12,346"),
        (0.123456, "0.1235"), (True, "True"), ("<b>", "<b>"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_a_reader_wants_them(value, shown):
    assert page.number(value) == shown


def test_the_policy_lets_in_the_pages_own_scripts_and_no_load():
    found = page.render("run", title="T", lead="", footer="", result=None, curves=[], metrics=None,
                        unavailable="x", commands=[], where="", profile=None)  # fmt: skip
    outline = Outline(found)
    [policy] = [attrs["content"] for _, attrs in outline.elements if "http-equiv" in attrs]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'" and "http" not in policy
    assert "unsafe" not in parts["script-src"]
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attrs, text in outline.scripts
        if "type" not in attrs
    ]
    assert parts["script-src"].split() == [f"'sha256-{one}'" for one in hashes]
