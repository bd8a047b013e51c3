"""A compiled program's text: kinds, lines, arithmetic and bytes of its operations."""

import jax
import jax.numpy as jnp
import pytest

from jdlopt.profiling import sources

TEXT = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/own/model.py"
2 "/lib/site-packages/flax/linear.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=99 end_line=99 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (p.0: f32[8,16,16,4], p.1: f32[3,3,4,32]) -> f32[8,16,16,32] {
  %p.0 = f32[8,16,16,4]{3,2,1,0:T(8,128)} parameter(0)
  %p.1 = f32[3,3,4,32]{3,2,1,0} parameter(1)
  ROOT %convolution.1 = f32[8,16,16,32]{3,2,1,0} convolution(%p.0, %p.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(step)/jvp(CNN)/CNN._block/conv_0/conv_general_dilated" stack_frame_id=2}
}

ENTRY %main.9 (a: f32[8,16,16,4], b: f32[3,3,4,32]) -> (f32[8,16,16,32], bf16[5]) {
  %a = f32[8,16,16,4]{3,2,1,0} parameter(0)
  %b = f32[3,3,4,32]{3,2,1,0} parameter(1)
  %fusion.2 = f32[8,16,16,32]{3,2,1,0} fusion(%a, %b), kind=kOutput, calls=%fused
  %gemm = (bf16[5]{0}, s8[64]{0}) custom-call(%a), custom_call_target="__cublas$lt"
  %constant.5 = f32[] constant(0), metadata={op_name="jit(step)/elsewhere" stack_frame_id=1}
  %broadcast.6 = f32[8,16]{1,0} broadcast(%constant.5), metadata={stack_frame_id=1}
  %tanh.7 = f32[8,16]{1,0} tanh(%broadcast.6), metadata={stack_frame_id=2}
  %copy.4 = f32[8,16,16,32]{3,2,1,0} copy(%fusion.2)
  ROOT %tuple.1 = (f32[8,16,16,32]{3,2,1,0}, /*index=1*/bf16[5]{0}) tuple(%copy.4, %gemm)
}
"""  # noqa: E501


def is_own(file):
    return "site-packages" not in file


def test_a_fusion_is_named_and_placed_by_what_is_in_it():
    program = sources.read_program(TEXT)
    assert program.name == "jit_step"
    assert sources.kind(program, "fusion.2") == "fusion of convolution"
    assert sources.where(program, "fusion.2", is_own) == ("/own/model.py", 7)
    assert sources.where(program, "fusion.2", lambda _: False)[1] == 99  # the innermost at all
    assert sources.flops(program, "fusion.2") == 2 * (8 * 16 * 16 * 32) * (3 * 3 * 4)
    assert sources.nbytes(program, "fusion.2") == 4 * (8 * 16 * 16 * (4 + 32) + 9 * 4 * 32)
    assert sources.where(program, "copy.4", is_own) == ("/own/model.py", 7)  # what it copies
    assert sources.where(program, "gemm", is_own) == ("", 0)
    taken = sources.where(program, "broadcast.6", lambda file: "flax" in file)
    assert taken == ("/lib/site-packages/flax/linear.py", 99)  # by what takes the zeros
    assert sources.kind(program, "gemm") == "__cublas$lt"
    assert sources.nbytes(program, "gemm") == 2 * 5 + 64 + 4 * 8 * 16 * 16 * 4
    assert sources.layer(program.instructions["convolution.1"].source) == "CNN/conv_0"
    assert [one.name for one in sources.largest(program, 2)] == ["fusion.2", "copy.4"]


def test_what_is_not_there_is_not_known():
    program = sources.read_program(TEXT)
    assert sources.where(program, "dot.7", is_own) == ("", 0)
    assert sources.flops(program, "dot.7") is None and sources.nbytes(program, "dot.7") is None
    assert sources.kind(program, "dot.7") == "dot"
    assert sources.holds_others(program, "while.3") and not sources.holds_others(program, "gemm")
    assert sources.read_program("no program").instructions == {}


@pytest.mark.parametrize(("op_name", "layer"), [
    ("jit(many_steps)/while/body/transpose(jvp(CNN))/CNN._block/conv_2/cond/branch_0_fun/dot",
     "CNN/conv_2 backward"),
    ("jit(one_step)/jvp(MLP)/head/dense_0/dot_general", "MLP/head/dense_0"),
    ("jit(one_step)/jit(clip)/max", ""),
    ("(reduce_sum:transpose(jvp(MLP/head/reduce_sum:jvp(/reduce_sum", ""),
    ("", ""),
])  # fmt: skip
def test_layers_are_read_off_the_name_stack(op_name, layer):
    assert sources.layer(op_name) == layer


def test_this_compilers_text_is_read():
    def step(a, b):
        return jnp.tanh(a @ b).sum()

    shapes = jax.ShapeDtypeStruct((8, 4), "float32"), jax.ShapeDtypeStruct((4, 16), "float32")
    program = sources.read_program(jax.jit(step).lower(*shapes).compile().as_text())
    (dot,) = (name for name, one in program.instructions.items() if one.opcode == "dot")
    file, line = sources.where(program, dot, is_own)
    assert file == __file__ and line == step.__code__.co_firstlineno + 1
    assert sources.flops(program, dot) == 2 * 8 * 4 * 16
