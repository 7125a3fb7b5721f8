"""The functions that NumPy calls for memory (:mod:`gpugrad.pool`), compiled to machine code that C can call.

The state is an array of unsigned numbers: see there. ``state[1]`` to ``state[4]`` are the addresses of NumPy's own malloc, calloc, realloc and free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.cgutils import ir  # llvmlite's
from numba.extending import intrinsic

from gpugrad import jit, pool

_WORD, _STATE = types.uintp, types.CPointer(types.uintp)
_LEAST, _SLOTS = np.uint64(pool.LEAST), np.uint64(pool._SLOTS)
_LIMIT, _KEPT, _COUNT, _BLOCKS = pool._LIMIT, pool._KEPT, pool._COUNT, np.uint64(pool._BLOCKS)
_ONE, _TWO = np.uint64(1), np.uint64(2)

usable_size = types.ExternalFunction("malloc_usable_size", _WORD(_WORD))  # of a block as it was given out, whatever NumPy says that it holds
memset = types.ExternalFunction("memset", _WORD(_WORD, types.int32, _WORD))


@intrinsic
def _call(typing, function, a, b, c):  # type: ignore[no-untyped-def]
    """A function of C, by its address. One that takes fewer arguments does not look at the others."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        pointer = builder.inttoptr(args[0], ir.FunctionType(word, [word] * 3).as_pointer())
        return builder.call(pointer, args[1:])

    return _WORD(_WORD, _WORD, _WORD, _WORD), generate


@jit.inlined
def _taken(state, i):  # type: ignore[no-untyped-def]
    """The address of block i, which is then no longer kept."""
    at = _BLOCKS + _TWO * i
    address, size, count = state[at], state[at + _ONE], state[_COUNT]
    end = _BLOCKS + _TWO * count
    while at + _TWO < end:
        state[at], state[at + _ONE] = state[at + _TWO], state[at + _TWO + _ONE]
        at += _TWO
    state[_COUNT] = count - _ONE
    state[_KEPT] -= size
    return address


@jit.inlined
def _fitting(state, size):  # type: ignore[no-untyped-def]
    """The block that was freed last of those that are large enough, and not much larger: it is the likeliest to be in the cache. 0 if there is none."""
    if size >= _LEAST:
        i = state[_COUNT]
        while i > np.uint64(0):
            i -= _ONE
            have = state[_BLOCKS + _TWO * i + _ONE]
            if have >= size and have - size <= size >> np.uint64(3):
                return _taken(state, i)
    return np.uint64(0)


def _malloc(state, size):  # type: ignore[no-untyped-def]
    block = _fitting(state, size)
    return block if block != np.uint64(0) else _call(state[1], state[0], size, np.uint64(0))


def _calloc(state, count, size):  # type: ignore[no-untyped-def]
    """Fresh pages are zero already, but each costs more when it is first written than filling one that is there."""
    if size == np.uint64(0) or count <= np.uint64(2**62) // size:
        block = _fitting(state, count * size)
        if block != np.uint64(0):
            return memset(block, np.int32(0), count * size)
    return _call(state[2], state[0], count, size)


def _realloc(state, block, size):  # type: ignore[no-untyped-def]
    return _call(state[3], state[0], block, size)


def _free(state, block, size):  # type: ignore[no-untyped-def]
    have = usable_size(block) if size >= _LEAST and block != np.uint64(0) else np.uint64(0)
    if have < _LEAST or have > state[_LIMIT]:
        _call(state[4], state[0], block, size)
        return
    at = _BLOCKS + _TWO * state[_COUNT]
    state[at], state[at + _ONE] = block, have
    state[_COUNT] += _ONE
    state[_KEPT] += have
    while state[_KEPT] > state[_LIMIT] or state[_COUNT] > _SLOTS:
        have = state[_BLOCKS + _ONE]
        _call(state[4], state[0], _taken(state, np.uint64(0)), have)


def _release(state):  # type: ignore[no-untyped-def]
    while state[_COUNT] > np.uint64(0):
        have = state[_BLOCKS + _ONE]
        _call(state[4], state[0], _taken(state, np.uint64(0)), have)


def functions() -> tuple[list[Any], list[int], Any]:
    """What must stay alive; the addresses of malloc, calloc, realloc and free; and a function of the state, as an array, that frees all blocks."""
    alive: list[Any] = []
    addresses: list[int] = []
    for f, words in ((_malloc, 1), (_calloc, 2), (_realloc, 2), (_free, 2)):
        dispatcher = jit.compiled(f)
        signature = (_STATE, *[_WORD] * words)
        dispatcher.compile(signature)
        result = dispatcher.overloads[signature]
        alive += [dispatcher, result]
        addresses.append(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))
    return alive, addresses, jit.compiled(_release)
