"""What a link in a shared directory leads to is not written to."""

from __future__ import annotations

import os

import pytest

from jdlopt import writing
from jdlopt.errors import WorkdirError


@pytest.fixture
def outside(tmp_path):
    """A file outside of the directory, which nothing may change."""
    file = tmp_path / "outside"
    file.write_text("mine")
    (tmp_path / "run").mkdir()
    yield file
    assert file.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_a_link_is_replaced_or_refused(outside, target):
    folder = outside.parent / "run"
    (folder / "page").symlink_to(outside.parent / target)
    (folder / ".page.writing").symlink_to(outside.parent / target)
    (folder / "lines").symlink_to(outside.parent / target)
    for opened in (writing.appended, writing.lock_file):
        with pytest.raises(OSError, match="it is a link"):
            opened(folder / "lines")
    writing.write_aside(folder / "page", "new")
    assert (folder / "page").read_text() == "new" and not (folder / "page").is_symlink()
    assert not (folder / ".page.writing").is_symlink()


def test_another_name_of_a_file_is_not_appended_to(outside):
    os.link(outside, outside.parent / "run" / "lines")
    with pytest.raises(OSError, match="no plain file"):
        writing.appended(outside.parent / "run" / "lines")


def test_a_pipe_is_not_waited_for(outside):
    os.mkfifo(outside.parent / "run" / "lock")
    with pytest.raises(OSError, match="no plain file"):
        writing.lock_file(outside.parent / "run" / "lock")


def test_what_was_there_stays_when_writing_fails(outside):
    page = outside.parent / "run" / "page"
    writing.write_aside(page, "old")
    with pytest.raises(TypeError), writing.aside(page) as file:
        file.write(b"new")
    assert page.read_text() == "old" and os.listdir(page.parent) == ["page"]


def test_folders_that_are_links_are_refused_but_not_the_directory_itself(outside):
    folder = outside.parent / "run"
    (folder / "trials").mkdir()
    (outside.parent / "named").symlink_to(folder)
    writing.refuse_links(outside.parent / "named", "trials", "absent")
    (folder / "trials" / "0001").symlink_to(outside.parent)
    with pytest.raises(WorkdirError, match="0001: is a link"):
        writing.refuse_links(outside.parent / "named", "absent", "trials")
