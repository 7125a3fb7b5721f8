"""Asking for memory before it is needed, so that it comes while something else is computed.

A row is read twice or more: first from memory, then from the cache. What the processor fetches ahead by itself it fetches in the first of these passes alone, where there is little to
compute, and it waits in the next. So in the later passes over one row, those after it are asked for, a few lines with each STEP elements: a loop that holds a prefetch does not vectorise.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.cgutils import create_struct_proxy, ir  # llvmlite's
from numba.extending import intrinsic

from gpugrad import jit

STEP = 256


@intrinsic
def _prefetch(_typing: Any, a: Any, i: Any) -> Any:
    """The line of the i-th element of an array in C order, into the first cache."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.gep(create_struct_proxy(signature.args[0])(context, builder, args[0]).data, [args[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, *[ir.Constant(number, v) for v in (0, 3, 1)]])  # for reading, to be kept, of data
        return context.get_dummy_value()

    return types.void(a, types.intp), generate


@jit.inlined
def prefetch(a, start, stop):  # type: ignore[no-untyped-def]
    """The elements from start to stop, counted through an array in C order, as far as there are any."""
    stop = min(stop, a.size)
    for i in range(start, stop, 64 // a.itemsize):
        _prefetch(a, i)
