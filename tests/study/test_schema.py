"""What a study's records hold: what another hand changed is told by its place."""

import pytest

from jdlopt.study import records, schema

RECORD = {**records.infeasible("x"), "state": "done", "values": [0.5], "reason": None}


@pytest.mark.parametrize("key", list(RECORD))
@pytest.mark.parametrize("value", [..., {"a": 1}, [[]], float("nan"), "text"])
def test_a_record_that_another_hand_changed_is_told_by_its_key(key, value):
    assert schema.problem(RECORD, 1) is None
    changed = {**RECORD, key: value}
    if value is ...:
        del changed[key]
    if (key, value) in (("reason", "text"), ("metrics", {"a": 1})):
        assert schema.problem(changed, 1) is None
    else:
        assert schema.problem(changed, 1).startswith(key)


def test_a_record_needs_a_value_for_each_objective():
    assert schema.problem(RECORD, 2).startswith("values")
    assert schema.problem([], 1).startswith("it is no object")
