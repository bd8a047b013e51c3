"""A walk through a traced step, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jdlopt.mesh.rules import Split
from jdlopt.plan.equations import (
    CALLS,
    LINEAR,
    MOVES,
    REMAT,
    SCATTERS,
    WRITTEN,
    Summed,
    arithmetic,
    axes_of,
    convolution,
    dimensions_of,
    dot,
    phase_of,
    program_of,
    share_of,
)
from jdlopt.plan.walked import (
    BACKWARD,
    NOTHING,
    Amount,
    Array,
    Event,
    Operation,
    Parameter,
    Sent,
    Terms,
    amount,
)


class Walk:
    """Writes down what a step does.

    Attributes:
      operations, sent, events: what was found so far.
      arrays: those that lie in memory, by number.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        splits: Sequence[Split],
        prime: int,
        kernels: Mapping[str, float],
    ):
        self.operations: list[Operation] = []
        self.sent: list[Sent] = []
        self.events: list[Event] = []
        self.arrays: dict[int, Array] = {}
        self._parameters, self._splits = parameters, splits
        self._prime, self._kernels = prime, kernels

    # --- arrays ----------------------------------------------------------------------------------

    def parameter(self, index: int, leaf: jax.ShapeDtypeStruct) -> Array:
        """Returns a parameter; the state has it in memory, so it counts nothing there."""
        return self._new(leaf, weights=True, leaf=index, dims=tuple(range(len(leaf.shape))))

    def given(self, aval: object, batched: bool) -> Array:
        """Returns an input beside the parameters, which lies in memory if it is the batch's."""
        array = self._new(aval, weights=not batched)
        if batched:
            self._keep(array)
        return array

    def end(self, outs: Sequence[Array]) -> None:
        """Writes what the step returns to memory."""
        for array in outs:
            self._store(array, BACKWARD, 1)

    def _new(self, aval: object, **known: object) -> Array:
        shape = getattr(aval, "shape", ())
        itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 4) or 4
        count = math.prod(shape)
        return Array(amount(count * itemsize, self._prime), itemsize, **known)  # type: ignore[arg-type]

    def _keep(self, array: Array) -> None:
        """Gives an array a place in memory."""
        array.ident = len(self.arrays)
        self.arrays[array.ident] = array
        self.events.append(Event(array.sources, (array.ident,)))

    def _store(self, array: Array, phase: str, times: int) -> Array:
        """Writes an array to memory that was to be computed where it is used."""
        self._whole(array, phase, times)
        plain = array.leaf is not None and not array.sources and self._is_kept(array)
        if array.ident is None and not array.known and not plain:
            reads = [self.arrays[ident].size for ident in array.sources]
            self._keep(array)
            if array.size.power == 0 and array.weights:
                size = array.size.each + sum(one.each for one in reads)
                self._note("elementwise", phase, times, kept=size, over=array.over)
            else:
                moved = (*reads, array.size)
                self._note("elementwise", phase, times, moved=moved, over=array.over)
        return array

    def _is_kept(self, array: Array) -> bool:
        """Whether an array is a parameter in the type that the state keeps it in."""
        return array.leaf is not None and array.itemsize == self._parameters[array.leaf].itemsize

    def _whole(self, array: Array, phase: str, times: int) -> None:
        """Adds up an array's terms over the devices that have them."""
        if array.terms is None:
            return
        for axis in sorted(array.partial):
            over = array.over - {axis}
            self.sent.append(Sent(axis, "all-reduce", phase, times, array.terms.size, over))
        array.terms.added = True

    def _note(self, name: str, phase: str, times: int, **more: object) -> None:
        self.operations.append(Operation(name, phase, times, **more))  # type: ignore[arg-type]

    def _use(self, array: Array, phase: str) -> None:
        """Notes that what is computed from the batch reads a parameter."""
        if array.leaf is not None:
            parameter = self._parameters[array.leaf]
            parameter.used = max(parameter.used, array.itemsize)
            parameter.phases.add(phase)

    # --- programs --------------------------------------------------------------------------------

    def body(self, jaxpr: Jaxpr, ins: Sequence[Array], times: int, phase: str) -> list[Array]:
        """Walks through a program; returns what it returns.

        Args:
          jaxpr: the program.
          ins: its constants and arguments.
          times: how often it runs.
          phase: what it is part of, where its operations do not say.
        """
        known: dict[Var, Array] = dict(zip([*jaxpr.constvars, *jaxpr.invars], ins, strict=True))

        def read(atom: Var | Literal) -> Array:
            return self._new(atom.aval, known=True) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            found = [read(atom) for atom in equation.invars]
            outs = self._equation(equation, found, times, phase_of(equation, phase))
            known.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(
        self, equation: JaxprEqn, ins: list[Array], times: int, phase: str
    ) -> list[Array]:
        name = equation.primitive.name
        if name == "dot_general":
            return [self._product(equation, ins, times, phase, *dot(equation))]
        if name == "conv_general_dilated":
            return [self._product(equation, ins, times, phase, *convolution(equation))]
        if name == "scan":
            return self._scan(equation, ins, times, phase)
        if name == "while":
            return self._while(equation, ins, times, phase)
        if name == "cond":  # of a choice between platforms, the last branch is the general one
            return self._call(equation.params["branches"][-1], ins[1:], times, phase)
        is_kernel = name == "pallas_call" or equation.params.get("name") in self._kernels
        if is_kernel and any(not array.known for array in ins):
            return self._kernel(equation, ins, times, phase)
        if name in CALLS:
            if name in REMAT:  # a barrier: what is computed again starts from what is in memory
                ins = [self._store(array, phase, times) for array in ins]
            program = program_of(equation)
            if program is not None:
                return self._call(program, ins, times, phase)
        return self._plain(equation, ins, times, phase)

    def _call(
        self, program: ClosedJaxpr, ins: Sequence[Array], times: int, phase: str
    ) -> list[Array]:
        consts = [self._new(np.asarray(value), known=True) for value in program.consts]
        return self.body(program.jaxpr, [*consts, *ins], times, phase)

    def _plain(self, equation: JaxprEqn, ins: list[Array], times: int, phase: str) -> list[Array]:
        """An operation on each number, or one that only moves or sums up numbers."""
        name, real = equation.primitive.name, [array for array in ins if not array.known]
        partial = (
            frozenset.intersection(*(array.partial for array in real)) if real else frozenset()
        )
        if name not in LINEAR or (name in ("mul", "div") and len(real) > 1):
            partial = frozenset()
        for array in real:
            if array.partial != partial:
                self._whole(array, phase, times)
        reads = frozenset().union(*(array.reads for array in real))
        over = frozenset().union(*(array.over for array in real))
        weights = all(array.weights for array in real)
        if not weights:
            for array in real:
                self._use(array, phase)
        outs = [
            self._new(
                var.aval,
                known=not real,
                weights=weights and bool(real),
                sources=reads,
                over=over,
            )
            for var in equation.outvars
        ]
        if partial:
            outs[0].terms = _terms(partial, real, outs[0])
        if len(real) == 1 and len(outs) == 1 and real[0].leaf is not None and name in LINEAR:
            outs[0].leaf, outs[0].dims = real[0].leaf, dimensions_of(equation, real[0])
        if not real:
            return outs
        if name in WRITTEN or name in MOVES or name in SCATTERS:
            sizes = [array.size for array in real]
            if name in MOVES:
                sizes = [outs[0].size]
            elif name in SCATTERS:
                sizes = [min(sizes[1:] or sizes, key=_large)] * 2
            if name not in SCATTERS:
                sizes = [*sizes, *(array.size for array in outs)]
            for array in outs:
                self._keep(array)
            if weights and all(size.power == 0 for size in sizes):
                self._note(name, phase, times, kept=sum(size.each for size in sizes))
            else:
                self._note(name, phase, times, moved=tuple(sizes), over=over)
        return outs

    def _product(
        self,
        equation: JaxprEqn,
        ins: list[Array],
        times: int,
        phase: str,
        flops: int,
        summed: Summed,
    ) -> Array:
        """A matrix product or convolution.

        Args:
          equation, ins, times, phase: as in `body`.
          flops: of it.
          summed: over which dimensions of its two operands it sums.
        """
        over: set[str] = set()
        partial: set[str] = set()
        for array, dimensions in zip(ins, summed, strict=True):
            self._store(array, phase, times)
            if array.weights and array.leaf is not None:
                here, elsewhere = axes_of(array, self._splits[array.leaf], dimensions)
                partial |= here
                over |= elsewhere
            elif not array.weights:
                over |= array.over
        active = [array for array in ins if not array.weights and not array.known]
        if active:
            for array in ins:
                self._use(array, phase)
        out = self._new(equation.outvars[0].aval, weights=not active)
        attends = len(active) == 2 and out.size.power > 0
        self._exchange(ins, active, over, attends, times, phase)
        if attends and len({"expert" in array.over for array in active}) == 2:
            over.discard("expert")
        out.over = frozenset(over - partial)
        out.terms = Terms(frozenset(partial), out.size) if partial else None
        out.sources = frozenset().union(*(array.reads for array in ins))
        self._keep(out)
        split = frozenset(over | partial)
        fixed = [a.size.each for a in (*ins, out) if a.size.power == 0 and not a.known]
        self.operations.append(
            Operation(
                equation.primitive.name,
                phase,
                times,
                flops=amount(flops, self._prime),
                dtype=str(getattr(equation.invars[0].aval, "dtype", "float32")),
                moved=tuple(a.size for a in (*ins, out) if a.size.power and not a.known),
                weights=sum(fixed),
                over=split,
            )
        )
        return out

    def _exchange(
        self,
        ins: Sequence[Array],
        active: Sequence[Array],
        over: set[str],
        attends: bool,
        times: int,
        phase: str,
    ) -> None:
        """What devices send each other for a product: keys and values, and tokens of experts."""
        if attends:
            least = min(active, key=lambda array: _large(array.size))
            self.sent.append(Sent("sequence", "all-gather", phase, times, least.size, least.over))
            with_experts = [array for array in active if "expert" in array.over]
            moved = with_experts if len(with_experts) == 1 else []
        else:
            by_expert = any(array.weights for array in ins) and "expert" in over
            moved = [a for a in active if by_expert and "expert" not in a.over]
        for array in moved:
            over_ = array.over - {"expert"}
            self.sent.append(Sent("expert", "all-to-all", phase, times, array.size, over_))

    # --- loops and kernels -----------------------------------------------------------------------

    def _scan(self, equation: JaxprEqn, ins: list[Array], times: int, phase: str) -> list[Array]:
        keys = equation.params
        length, consts, carried = keys["length"], keys["num_consts"], keys["num_carry"]
        ins = [self._store(array, phase, times) for array in ins]
        jaxpr = keys["jaxpr"].jaxpr
        inner = ins[:consts]
        pairs = list(zip(ins[consts:], jaxpr.invars[consts:], strict=True))
        inner += [self._new(var.aval, over=array.over) for array, var in pairs[:carried]]
        inner += [self._slice(array, var.aval, length) for array, var in pairs[carried:]]
        outer, self.events = self.events, []
        found = self._call(keys["jaxpr"], inner, times * length, phase)
        for array in found:
            self._store(array, phase, times * length)
        events, self.events = self.events, outer
        return self._made(equation, ins, found, events, carried)

    def _slice(self, array: Array, aval: object, length: int) -> Array:
        part = self._new(aval, known=array.known, weights=array.weights, over=array.over)
        part.leaf, part.dims = array.leaf, None if array.dims is None else array.dims[1:]
        if part.leaf is not None:
            self._parameters[part.leaf].turns = length
        return part

    def _while(self, equation: JaxprEqn, ins: list[Array], times: int, phase: str) -> list[Array]:
        """A loop of unknown length: one turn of it."""
        keys = equation.params
        skipped, consts = keys["cond_nconsts"], keys["body_nconsts"]
        ins = [self._store(array, phase, times) for array in ins][skipped:]
        inner = ins[:consts]
        for array, var in zip(ins[consts:], keys["body_jaxpr"].jaxpr.invars[consts:], strict=True):
            inner.append(self._new(var.aval, over=array.over))
        outer, self.events = self.events, []
        found = self._call(keys["body_jaxpr"], inner, times, phase)
        for array in found:
            self._store(array, phase, times)
        events, self.events = self.events, outer
        return self._made(equation, ins, found, events, len(found))

    def _made(
        self,
        equation: JaxprEqn,
        ins: Sequence[Array],
        found: Sequence[Array],
        events: list[Event],
        carried: int,
    ) -> list[Array]:
        """What a loop leaves: its carry, and what its turns have stacked."""
        outs, made = [], []
        for index, (var, array) in enumerate(zip(equation.outvars, found, strict=True)):
            known = array.known and index >= carried
            out = self._new(var.aval, known=known, weights=array.weights, over=array.over)
            if index >= carried and array.leaf is not None:  # a cast that the backward pass reads
                out.leaf, out.dims = array.leaf, None if array.dims is None else (0, *array.dims)
            if not known:
                out.ident = len(self.arrays)
                self.arrays[out.ident] = out
                made.append(out.ident)
            outs.append(out)
        reads = frozenset().union(*(array.reads for array in ins))
        self.events.append(Event(reads, tuple(made), events))
        return outs

    def _kernel(self, equation: JaxprEqn, ins: list[Array], times: int, phase: str) -> list[Array]:
        """A function that is one kernel: what it computes on the way stays on the chip."""
        for array in ins:
            self._store(array, phase, times)
            self._use(array, phase)
        name = str(equation.params.get("name") or equation.primitive.name)
        share = self._kernels.get(name, 1.0)
        program = program_of(equation)
        dtype = str(getattr(equation.invars[0].aval, "dtype", "float32"))
        flops, vector = [NOTHING], [NOTHING]
        if name != "pallas_call" and program is not None:
            flops, vector = arithmetic(program.jaxpr, self._prime)
        over = frozenset().union(*(array.over for array in ins if not array.weights))
        reads = frozenset().union(*(array.reads for array in ins))
        outs = [self._new(var.aval, sources=reads, over=over) for var in equation.outvars]
        for array in outs:
            self._keep(array)
        self.operations.append(
            Operation(
                name,
                phase,
                times,
                flops=share_of(flops, share),
                dtype=dtype,
                vector=share_of(vector, share),
                moved=tuple(array.size for array in (*ins, *outs)),
                over=over,
            )
        )
        keys = [a for a in ins if not a.weights and a.size.power]
        for array in sorted(keys, key=lambda one: _large(one.size))[:2]:
            self.sent.append(Sent("sequence", "all-gather", phase, times, array.size, array.over))
        return outs


def _terms(axes: frozenset[str], ins: Sequence[Array], out: Array) -> Terms:
    """The terms of an array that is made of others: the same of one, their sum of several."""
    sizes = [array.terms.size for array in ins if array.terms is not None]
    if len(ins) == 1 and ins[0].terms is not None:
        ins[0].terms.size = min(*sizes, out.size, key=_large)
        return ins[0].terms
    return Terms(axes, min(*sizes, out.size, key=_large))


def _large(size: Amount) -> tuple[int, float]:
    return size.power, size.each
