"""The table of methods that compress runs; what an entry is, `jdlopt.compress.entry` says.

A technique's file in this room exports its `Method`, and is named here.
"""

from __future__ import annotations

from jdlopt.compress.entry import Method
from jdlopt.compress.few_bits import POST_TRAINING_QUANTIZATION, QUANTIZATION_AWARE_TRAINING
from jdlopt.compress.folding import FOLDING
from jdlopt.compress.half_precision import HALF_PRECISION
from jdlopt.compress.low_rank import LOW_RANK
from jdlopt.compress.pruned import PRUNING
from jdlopt.compress.pruned_units import UNIT_PRUNING
from jdlopt.compress.sliced_width import SLICING
from jdlopt.compress.width import HALF_WIDTH

METHODS: dict[str, Method] = {
    one.name: one
    for one in (
        FOLDING,
        HALF_PRECISION,
        POST_TRAINING_QUANTIZATION,
        HALF_WIDTH,
        SLICING,
        LOW_RANK,
        PRUNING,
        UNIT_PRUNING,
        QUANTIZATION_AWARE_TRAINING,
    )
}
"""Every method by its name, in the order in which they are tried."""
