"""What diagnosis says of a run: one finding, and in which order findings are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jdlopt.evidence.techniques.entry import value_of

LEVELS = {"good": 0, "note": 1, "warning": 2, "serious": 3}
"""A serious finding makes the run's numbers wrong, or costs most of what could be reached; a
warning costs something; a note is worth knowing."""

CAUSES = (
    # the data: what is measured or taught is not what is meant
    *("target_leak", "split_leak", "shift", "label_errors", "class_imbalance"),
    "unreachable_transcripts",
    # what is wrong before the first step
    *("precision_overflow", "target_scale", "input_scale", "layer_scale", "exploding_gradients"),
    *("dead_units", "saturated_units", "vanishing_gradients"),
    # how it is trained
    *("noisy_gradients", "learning_rate_too_high", "learning_rate_too_low", "divergence"),
    *("dying_units", "saturating_units", "loss_spikes"),
    # what became of it
    *("only_blanks", "heavy_tails", "overfitting", "still_improving", "underfitting"),
    *("over_regularised", "miscalibration", "weak_classes"),
    # what it costs, and what is worth knowing
    *("input_bound", "dispatch_bound", "padding", "batch_too_large", "saturated_early"),
    *("unused_capacity", "noisy_validation"),
)
"""Every finding, causes before their effects: a dead layer underfits as well, and what is to be
mended is the layer. Of findings of one level, the first here is reported first."""

Record = Mapping[str, Any]
"""What `jdlopt.evidence.gather.gather` returns."""


@dataclass(frozen=True)
class Finding:
    """One thing that diagnosis says about a run.

    Attributes:
      name: one of `CAUSES`.
      level: one of `LEVELS`.
      text: what was found, with its numbers.
      suggestion: what to do beside the techniques; `cures.agreed` adds these in words.
      techniques: names of `cures.CURES` that may help, best first.
      numbers: what it was decided by, JSON-able.
      needs: which of `cures.KNOBS` and `cures.OUTCOMES` must rise (1) or fall (-1).
      words: how a technique is suggested here, in place of what `cures.CURES` says.
    """

    name: str
    level: str
    text: str
    suggestion: str = ""
    techniques: Sequence[str] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Sorts findings, the higher first: by level, then causes before effects.

        Example:
          >>> Finding("overfitting", "serious", "").score > Finding("shift", "warning", "").score
          True
        """
        return LEVELS[self.level] + 1 - (CAUSES.index(self.name) + 1) / (len(CAUSES) + 1)

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON can hold it."""
        return {
            "name": self.name,
            "level": self.level,
            "text": self.text,
            "suggestion": self.suggestion,
            "numbers": dict(self.numbers),
            "techniques": list(self.techniques),
            "score": round(self.score, 4),
        }


def setting(record: Record, key: str) -> Any:
    """Returns a key of the run's config; None where it is not known.

    Example:
      >>> setting({"config": {"train": {"patience": 5}}}, "train.patience")
      5
    """
    return value_of(record.get("config") or {}, key)


def level(value: float, warning: float, serious: float) -> str | None:
    """Returns which level a number reaches, if any; the larger, the worse.

    Example:
      >>> level(0.3, warning=0.1, serious=0.5), level(0.05, warning=0.1, serious=0.5)
      ('warning', None)
    """
    if not value >= warning:
        return None
    return "serious" if value >= serious else "warning"


def share(value: float) -> str:
    """Returns a share as people read it.

    Example:
      >>> share(0.0312), share(0.5)
      ('3.1 %', '50 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def some(names: Sequence[str], most: int = 3) -> str:
    """Returns the first of some names, and how many there are beside them.

    Example:
      >>> some(["a", "b", "c", "d", "e"])
      'a, b, c and 2 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
