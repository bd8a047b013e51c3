"""Findings about transcriptions: a model that says nothing, transcripts that can't be reached."""

from __future__ import annotations

from jdlopt.evidence.findings.finding import Finding, Record, level, share

SILENT = (0.5, 0.95)
"""Of the training examples, those of which only blanks come out."""
TOO_SHORT = (0.0, 0.01)
"""Of the examples, those whose transcripts need more steps than there are."""


def only_blanks(record: Record) -> Finding | None:
    """Finds a model of which only blanks come out, which all recognisers go through at first."""
    said = (record.get("predictions") or {}).get("train") or {}
    empty = said.get("empty")
    made = None if empty is None else level(empty, *SILENT)
    if made is None or empty is None:
        return None
    return Finding(
        "only_blanks",
        made,
        f"Of {share(empty)} of the training examples only blanks come out: nothing is said. Of all "
        f"steps, {share(said['blanks'])} are blank.",
        "To answer with blanks is what is learnt first; symbols come later, with steps that are "
        "neither too small nor cut short. Check that sounds and transcripts belong together, and "
        "begin with short ones.",
        (
            *("longer_training", "learning_rate_up", "warmup", "clip_norm", "less_augmentation"),
            "less_dropout",
        ),
        {"empty": empty, "blanks": said["blanks"]},
        needs={"fit": 1},
    )


def unreachable_transcripts(record: Record) -> Finding | None:
    """Finds transcripts that need more steps than the model has for their sound."""
    said = (record.get("predictions") or {}).values()
    looked = [one for one in said if one and "unreachable" in one]
    count = sum(one["unreachable"] for one in looked)
    of = sum(one["count"] for one in looked)
    if not count:
        return None
    return Finding(
        "unreachable_transcripts",
        level(count / of, *TOO_SHORT) or "warning",
        f"{count:,} of {of:,} transcripts that were looked at need more steps than the model has "
        "for their sound: their loss is as good as infinite, whatever is learnt.",
        "A step says one symbol, and equal ones need a blank between them. Pieces of words "
        "(data.text.tokenizer='bpe') need fewer steps than characters.",
        ("finer_steps",),
        {"count": count, "of": of},
    )


FINDINGS = (only_blanks, unreachable_transcripts)
