"""The page: what comes from outside stays text, and its colours can be read."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    block = re.search(re.escape(selector) + r" \{(.*?)\}", page.STYLE, re.DOTALL)
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


@given(st.text())
def test_any_text_survives_html(words):
    made = Outline(f"<p title='{page.text(words)}'>{page.text(words)}</p>")
    assert [tag for tag, _ in made.elements] == ["p"]
    clean = words.replace("\r\n", "\n").replace("\r", "\n")
    assert made.words.replace("\r\n", "\n").replace("\r", "\n") == clean


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json)
def test_any_json_survives_a_script_element(value):
    text = page.as_script(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_numbers_that_are_none_become_null():
    assert page.as_script([float("nan"), float("inf"), 1.0]) == "[null, null, 1.0]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (1234567, "1,234,567"), (12345.6, "12,346"),
        (0.123456, "0.1235"), (True, "True"), ("<b>", "&lt;b&gt;"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_a_reader_wants_them(value, shown):
    assert page.number(value) == shown


def test_the_policy_of_the_page_forbids_every_load():
    text = page.page("T", "lead", [page.section("a", "A", "<p>x</p>")], "foot")
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "http" not in policy[1]
