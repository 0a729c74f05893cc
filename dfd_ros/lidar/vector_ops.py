"""What the elimination's inner loops are made of, on addresses of float32 numbers: vector instructions, and BLAS's sgemm.

Written in LLVM's vector instructions, because numba's own loops over rows of a few dozen numbers spend most of their
time on checks for overlap; LLVM maps them to what the processor has. Addresses come from `address(array)`, strides
are in bytes where not said otherwise, and nothing is checked.

`LANES` systems of the same pattern are worked on at once, their numbers interleaved: arrays (..., LANES), of which an
*entry* is the LANES numbers of one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from scipy.linalg import cython_blas  # noqa: F401  loads the BLAS that numba calls

LANES = 16
BYTES = 4  # of a number
ENTRY = BYTES * LANES  # bytes of an entry

_FLOAT = ir.FloatType()
_ENTRY = ir.VectorType(_FLOAT, LANES)
_FAST = ("contract", "reassoc", "nsz")
_RUN = 8  # numbers that a vector instruction adds or copies in a run

# numba's own door to BLAS (it is what np.dot calls), which takes strides and adds to its output.
_xxgemm = types.ExternalFunction(
    "numba_xxgemm", types.intc(types.char, types.char, types.char, *(types.intp for _ in range(11)))
)
_KIND, _PLAIN = np.int8(ord("s")), np.int8(ord("n"))
_ZERO_AND_ONE = np.array([0.0, 1.0], np.float32)


@njit(nogil=True, cache=True)
def address(array):  # type: ignore[no-untyped-def]
    """Where an array's first number is."""
    return np.intp(array.ctypes.data)


@njit(nogil=True, cache=True)
def add_product(rows, columns, inner, a, a_stride, b, b_stride, c, c_stride):  # type: ignore[no-untyped-def]
    """C += A B, row-major (rows x inner) and (inner x columns); strides in numbers."""
    one = address(_ZERO_AND_ONE) + BYTES
    _xxgemm(_KIND, _PLAIN, _PLAIN, columns, rows, inner, one, b, b_stride, a, a_stride, one, c, c_stride)


@njit(nogil=True, cache=True)
def write_product(rows, columns, inner, a, a_stride, b, b_stride, c, c_stride):  # type: ignore[no-untyped-def]
    """C = A B, as `add_product`."""
    zero = address(_ZERO_AND_ONE)
    _xxgemm(_KIND, _PLAIN, _PLAIN, columns, rows, inner, zero + BYTES, b, b_stride, a, a_stride, zero, c, c_stride)


def _load(builder: Any, kind: ir.Type, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=BYTES)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=BYTES)


def _at(builder: Any, address: Any, index: Any, size: int) -> Any:
    """Address of the index-th (a number, or a value) thing of this size in bytes."""
    if isinstance(index, int):
        return builder.add(address, ir.Constant(address.type, index * size))
    return builder.add(address, builder.mul(index, ir.Constant(address.type, size)))


def _plus_product(builder: Any, total: Any, a: Any, b: Any) -> Any:
    return builder.fadd(total, builder.fmul(a, b, flags=_FAST), flags=_FAST)


def _spread(builder: Any, number: Any, kind: Any) -> Any:
    """A vector of the same number."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of vectors: blocks off the diagonal change places, each half as large as those before."""
    size = len(rows) // 2
    while size:
        first = [j if not j & size else len(rows) + j - size for j in range(len(rows))]
        second = [j + size if not j & size else len(rows) + j for j in range(len(rows))]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), len(rows)), mask) for mask in (first, second)]
        swapped = list(rows)
        for i in range(len(rows)):
            if not i & size:
                for part, mask in zip((i, i + size), masks, strict=True):
                    swapped[part] = builder.shuffle_vector(rows[i], rows[i + size], mask)
        rows = swapped
        size //= 2
    return rows


# ---- single numbers ----


@intrinsic
def as_float(typingctx, bits):  # type: ignore[no-untyped-def]
    """The float32 with the lower 32 bits."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), _FLOAT)

    return types.float32(types.int64), codegen


def _for_run(builder: Any, count: Any, do: Callable[[ir.Type, Any], None]) -> None:
    """Do something to `count` numbers that lie side by side: do(type of what to take at once, offset in bytes)."""
    whole = builder.udiv(count, ir.Constant(count.type, _RUN))
    with cgutils.for_range(builder, whole) as loop:
        do(ir.VectorType(_FLOAT, _RUN), builder.mul(loop.index, ir.Constant(count.type, _RUN * BYTES)))
    offset = builder.mul(whole, ir.Constant(count.type, _RUN * BYTES))
    for bit in (4, 2, 1):  # the rest, by the binary digits of its length
        digit = builder.and_(count, ir.Constant(count.type, bit))
        with builder.if_then(builder.icmp_unsigned("!=", digit, ir.Constant(count.type, 0))):
            do(ir.VectorType(_FLOAT, bit), offset)
        offset = builder.add(offset, builder.mul(digit, ir.Constant(count.type, BYTES)))


@intrinsic
def add_run(typingctx, target, source, count):  # type: ignore[no-untyped-def]
    """target[j] += source[j] for j < count; made for a few to a few dozen numbers."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, count = args

        def add(kind: ir.Type, offset: Any) -> None:
            to = builder.add(target, offset)
            value = _load(builder, kind, builder.add(source, offset))
            _store(builder, builder.fadd(_load(builder, kind, to), value), to)

        _for_run(builder, count, add)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def copy_run(typingctx, target, source, count):  # type: ignore[no-untyped-def]
    """target[j] = source[j] for j < count."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, count = args

        def copy(kind: ir.Type, offset: Any) -> None:
            _store(builder, _load(builder, kind, builder.add(source, offset)), builder.add(target, offset))

        _for_run(builder, count, copy)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def fill_run(typingctx, target, number, count):  # type: ignore[no-untyped-def]
    """target[j] = number for j < count."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, number, count = args

        def fill(kind: ir.Type, offset: Any) -> None:
            _store(builder, _spread(builder, number, kind), builder.add(target, offset))

        _for_run(builder, count, fill)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), codegen


@intrinsic
def invert_block(typingctx, block, excess):  # type: ignore[no-untyped-def]
    """Invert LANES x LANES numbers by Gauss-Jordan elimination without subtractions.

    The matrix has -block off its diagonal, and on it what makes its rows sum to excess (LANES); block's own diagonal
    does not count. Writes the inverse to block.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        block, excess = args
        zeros, ones = ir.Constant(_ENTRY, [0.0] * LANES), ir.Constant(_ENTRY, [1.0] * LANES)
        rows = [_load(builder, _ENTRY, _at(builder, block, i, ENTRY)) for i in range(LANES)]
        columns = [*_transpose(builder, rows), _load(builder, _ENTRY, excess)]  # so the excess is one column more
        lane_type = ir.VectorType(ir.IntType(32), LANES)
        for k in range(LANES):
            total = columns[LANES]
            for j in range(k + 1, LANES):
                total = builder.fadd(total, columns[j], flags=_FAST)
            here = ir.Constant(lane_type, [k] * LANES)
            inverse = builder.fdiv(ones, builder.shuffle_vector(total, total, here))
            others = ir.Constant(lane_type, [LANES + j if j == k else j for j in range(LANES)])
            factors = builder.shuffle_vector(columns[k], ones, others)
            for j in range(LANES + 1):
                if j == k:
                    columns[j] = builder.fmul(factors, inverse, flags=_FAST)
                else:
                    pivot = builder.fmul(builder.shuffle_vector(columns[j], zeros, here), inverse, flags=_FAST)
                    rest = builder.shuffle_vector(columns[j], zeros, others)
                    columns[j] = _plus_product(builder, rest, factors, pivot)
        for i, row in enumerate(_transpose(builder, columns[:LANES])):
            _store(builder, row, _at(builder, block, i, ENTRY))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


# ---- entries of LANES numbers ----


@intrinsic
def separate_lanes(typingctx, target, target_stride, source, count):  # type: ignore[no-untyped-def]
    """Row l of target (LANES x count) = lane l of source's entries; count is a multiple of LANES."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, target_stride, source, count = args
        with cgutils.for_range(builder, builder.udiv(count, ir.Constant(count.type, LANES))) as loop:
            first = _at(builder, source, loop.index, LANES * ENTRY)
            entries = [_load(builder, _ENTRY, _at(builder, first, i, ENTRY)) for i in range(LANES)]
            for lane, numbers in enumerate(_transpose(builder, entries)):
                row = builder.mul(target_stride, ir.Constant(target_stride.type, lane))
                _store(builder, numbers, _at(builder, builder.add(target, row), loop.index, ENTRY))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def fill_lanes(typingctx, target, number, count):  # type: ignore[no-untyped-def]
    """target[j] = number for j < count entries."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, number, count = args
        value = _spread(builder, number, _ENTRY)
        with cgutils.for_range(builder, count) as loop:
            _store(builder, value, _at(builder, target, loop.index, ENTRY))
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), codegen


@intrinsic
def copy_lanes(typingctx, target, source, count):  # type: ignore[no-untyped-def]
    """target[j] = source[j] for j < count entries."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, count = args
        with cgutils.for_range(builder, count) as loop:
            value = _load(builder, _ENTRY, _at(builder, source, loop.index, ENTRY))
            _store(builder, value, _at(builder, target, loop.index, ENTRY))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def add_lanes(typingctx, target, source, count):  # type: ignore[no-untyped-def]
    """target[j] += source[j] for j < count entries."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, count = args
        with cgutils.for_range(builder, count) as loop:
            to = _at(builder, target, loop.index, ENTRY)
            value = _load(builder, _ENTRY, _at(builder, source, loop.index, ENTRY))
            _store(builder, builder.fadd(_load(builder, _ENTRY, to), value), to)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def add_scaled_lanes(typingctx, target, factor, source, count):  # type: ignore[no-untyped-def]
    """target[j] += factor[0] source[j] for j < count entries."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, factor, source, count = args
        scale = _load(builder, _ENTRY, factor)
        with cgutils.for_range(builder, count) as loop:
            to = _at(builder, target, loop.index, ENTRY)
            value = _load(builder, _ENTRY, _at(builder, source, loop.index, ENTRY))
            _store(builder, _plus_product(builder, _load(builder, _ENTRY, to), scale, value), to)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def add_dot_lanes(typingctx, target, a, b, count):  # type: ignore[no-untyped-def]
    """target[0] += Σ_j a[j] b[j] over count entries."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, a, b, count = args
        total = cgutils.alloca_once_value(builder, _load(builder, _ENTRY, target))
        with cgutils.for_range(builder, count) as loop:
            factor = _load(builder, _ENTRY, _at(builder, a, loop.index, ENTRY))
            value = _load(builder, _ENTRY, _at(builder, b, loop.index, ENTRY))
            builder.store(_plus_product(builder, builder.load(total), factor, value), total)
        _store(builder, builder.load(total), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def normalise_lanes(typingctx, row, count):  # type: ignore[no-untyped-def]
    """row[j] /= Σ of row[0] to row[count - 2] for j < count entries: all but the last belong to the sum."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        row, count = args
        chains = 4  # sums side by side, for an addition waits for the one before
        totals = [cgutils.alloca_once(builder, _ENTRY) for _ in range(chains)]
        for total in totals:
            builder.store(ir.Constant(_ENTRY, [0.0] * LANES), total)

        def add(total: Any, index: Any) -> None:
            value = _load(builder, _ENTRY, _at(builder, row, index, ENTRY))
            builder.store(builder.fadd(builder.load(total), value, flags=_FAST), total)

        summed = builder.sub(count, ir.Constant(count.type, 1))
        whole = builder.udiv(summed, ir.Constant(count.type, chains))
        with cgutils.for_range(builder, whole) as loop:
            first = builder.mul(loop.index, ir.Constant(count.type, chains))
            for chain, total in enumerate(totals):
                add(total, builder.add(first, ir.Constant(count.type, chain)))
        with cgutils.for_range(builder, summed, builder.mul(whole, ir.Constant(count.type, chains))) as loop:
            add(totals[0], loop.index)
        pivot = builder.load(totals[0])
        for total in totals[1:]:
            pivot = builder.fadd(pivot, builder.load(total))
        inverse = builder.fdiv(ir.Constant(_ENTRY, [1.0] * LANES), pivot)
        with cgutils.for_range(builder, count) as loop:
            at = _at(builder, row, loop.index, ENTRY)
            _store(builder, builder.fmul(_load(builder, _ENTRY, at), inverse), at)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


def push_lanes(rows: int, pivots: int):  # type: ignore[no-untyped-def]
    """The intrinsic that eliminates `pivots` normalised rows u from `rows` rows x below them.

    push(out, out_stride, x, x_stride, u, u_stride, count), with all addresses at the first pivot's column: x's factors

        f_ip = x_i[p] + Σ_{q<p} f_iq u_q[p],       then       out_i[j] = x_i[pivots + j] + Σ_p f_ip u_p[pivots + j]

    for j < count entries; out may be x's own columns from `pivots` on.
    """

    @intrinsic
    def push(typingctx, out, out_stride, x, x_stride, u, u_stride, count):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            out, out_stride, x, x_stride, u, u_stride, count = args
            step = [
                [builder.mul(s, ir.Constant(s.type, i)) for i in range(n)]
                for s, n in ((out_stride, rows), (x_stride, rows), (u_stride, pivots))
            ]
            out_rows, x_rows, u_rows = (
                [builder.add(base, offset) for offset in offsets]
                for base, offsets in zip((out, x, u), step, strict=True)
            )
            factors: list[list[Any]] = [[] for _ in range(rows)]
            for p in range(pivots):
                above = [_load(builder, _ENTRY, _at(builder, u_rows[q], p, ENTRY)) for q in range(p)]
                for i in range(rows):
                    factor = _load(builder, _ENTRY, _at(builder, x_rows[i], p, ENTRY))
                    for q in range(p):
                        factor = _plus_product(builder, factor, factors[i][q], above[q])
                    factors[i].append(factor)
            with cgutils.for_range(builder, count) as loop:
                column = builder.add(loop.index, ir.Constant(count.type, pivots))
                pivot = [_load(builder, _ENTRY, _at(builder, row, column, ENTRY)) for row in u_rows]
                for i in range(rows):
                    value = _load(builder, _ENTRY, _at(builder, x_rows[i], column, ENTRY))
                    for p in range(pivots):
                        value = _plus_product(builder, value, factors[i][p], pivot[p])
                    _store(builder, value, _at(builder, out_rows[i], loop.index, ENTRY))
            return context.get_dummy_value()

        return types.void(*(types.intp for _ in range(7))), codegen

    return push
