"""The table of chips: what holds of every row, and how a name is found."""

from __future__ import annotations

import pytest

from jdlopt.errors import UserError
from jdlopt.plan.chips import CHIPS, find_chip


def test_every_row_is_of_a_size_that_such_a_chip_can_have() -> None:
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert chip.dcn_bandwidth < chip.ici_bandwidth < chip.hbm_bandwidth
        # a product of matrices pays from some hundred operations a byte on
        assert 50 < chip.peak("float16") / chip.hbm_bandwidth < 1000
        assert chip.peak("float64") == chip.peak("float32") <= chip.peak("float16")


def test_an_unknown_chip_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'v5x' is no chip that is known. Did you mean 'v5"):
        find_chip("v5x")
