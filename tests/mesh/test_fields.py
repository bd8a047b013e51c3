"""What can't be had of a mesh is said in words, before anything is trained."""

from __future__ import annotations

import pytest

from jdlopt.mesh import AXES, MeshFields, axis_sizes, mesh_problems


def test_data_takes_the_devices_that_are_left():
    assert axis_sizes(MeshFields(fsdp=2, tensor=2, sequence=2), 16)["data"] == 2
    assert list(axis_sizes(MeshFields(), 8)) == list(AXES)
    assert mesh_problems(MeshFields(fsdp=2, tensor=2), 16, 8) == []
    assert mesh_problems(MeshFields(data=2, fsdp=3), 18, 8) == []  # two of eight left out, as said


@pytest.mark.parametrize(
    ("fields", "batch_size", "words"),
    [
        ({"data": 0}, 16, ["mesh.data", "at least 1", "found 0"]),
        ({"data": 64}, 64, ["mesh", "64", "8 found"]),
        ({"data": 3, "tensor": 2}, 16, ["batch_size", "= 3 devices", "15 or 18", "train on 4 of "
                                        "them, mesh.data=2"]),
        ({"fsdp": 16}, 16, ["mesh.fsdp: 16 is more than the 8"]),
        ({"fsdp": 3}, 18, ["mesh.fsdp: 3 doesn't divide the 8", "1, 2, 4, 8", "mesh.data=2"]),
        ({"fsdp": 2, "tensor": 3}, 18, ["mesh.fsdp × mesh.tensor: 6 doesn't divide"]),
        ({"data": 2, "tensor": 8}, 18, ["data × tensor = 2 × 8 needs 16 devices; 8 found"]),
        ({"microbatches": 2}, 16, ["mesh.microbatches: there is no pipeline"]),
        ({"pipeline": 4, "microbatches": 3}, 16, ["3 can't share the 8 examples", "1, 2, 4, 8"]),
        ({"rules": ((None, "tensor"),)}, 16, ["mesh.rules", "no rule"]),
        ({"rules": (("(kernel", "tensor"),)}, 16, ["'(kernel' is not a regular expression"]),
        ({"rules": (("kernel", "tensr"),)}, 16, ["'tensr'", "Did you mean 'tensor'?"]),
        ({"rules": (("kernel", "data"),)}, 16, ["'data' splits the batch alone"]),
        ({"rules": (("kernel", "fsdp", "fsdp"),)}, 16, ["two dimensions over the same axis"]),
        ({"rules": (("kernel", "fsdp", "tensor"),)}, 16, ["leave 'fsdp' out"]),
    ],
)  # fmt: skip
def test_each_problem_is_one_plain_message(fields, batch_size, words):
    (problem,) = mesh_problems(MeshFields(**fields), batch_size, 8)
    for word in words:
        assert word in problem
