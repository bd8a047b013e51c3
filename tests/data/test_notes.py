from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jdlopt.data.notes import KINDS, MOST_TOLD, Note, Notes, say

WORDS = st.text(min_size=1, max_size=20)
NOTES = st.builds(
    Note,
    st.sampled_from(KINDS),
    WORDS,
    st.integers(1, 10**9),
    st.sampled_from(("values", "files")),
    st.lists(WORDS, max_size=3).map(tuple),
    WORDS,
)


@given(NOTES)
def test_a_note_is_told_whole_and_comes_back_from_its_record(note):
    assert Note.from_dict(note.to_dict()) == note
    for part in (note.kind, note.what, f"{note.count:,} ", *note.places, note.remedy):
        assert part in str(note)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 99)), min_size=1))
def test_equal_notes_become_one_and_nothing_is_lost_of_their_counts(added):
    notes = Notes()
    for place, (what, count) in enumerate(added):
        notes.add("changed", what, str(place), count)
    made = list(notes)
    assert {note.what for note in made} == {what for what, _ in added}
    for note in made:
        mine = [(str(i), count) for i, (what, count) in enumerate(added) if what == note.what]
        assert note.count == sum(count for _, count in mine)
        assert note.places[:MOST_TOLD] == tuple(place for place, _ in mine[:MOST_TOLD])
        assert (len(mine) > MOST_TOLD) == (note.places[-1].startswith("and "))


def test_words_of_the_data_send_nothing_to_the_terminal(capsys):
    say([Note("unused", "a\x1b[31mb\nc")])
    assert capsys.readouterr().err == "data: unused: a\\x1b[31mb c (1 column)\n"
