"""How texts are continued: what flags of ``jdlopt predict`` say, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jdlopt.config import Range
from jdlopt.config.options import Flag

GROUP = "continuing texts (data.task='next_token')"


@dataclass(frozen=True)
class Continuation:
    """How a text is continued.

    Attributes:
      new_tokens: at most so many tokens, fewer where the text ends.
      temperature, top_k, top_p: as `jdlopt.models.generate.sample` takes them.
      seed: of what is drawn.
    """

    new_tokens: Annotated[int, Range(1), Flag("tokens at most", "N", group=GROUP)] = 64
    temperature: Annotated[
        float, Range(0), Flag("what scores are divided by; 0: the best token", "T", group=GROUP)
    ] = 1.0
    top_k: Annotated[
        int, Range(0), Flag("draw from the K best tokens; 0: from all", "K", group=GROUP)
    ] = 0
    top_p: Annotated[
        float,
        Range(0, 1, low_open=True),
        Flag("of these, from the fewest whose shares sum to P", "P", group=GROUP),
    ] = 1.0
    seed: Annotated[int, Range(0), Flag("of what is drawn", "N", group=GROUP)] = 0
