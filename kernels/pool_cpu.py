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
_NONE, _ONE = np.uint64(0), np.uint64(1)
_LEAST, _SLOTS, _PATIENCE = np.uint64(pool.LEAST), np.uint64(pool._SLOTS), np.uint64(pool._PATIENCE)
_LIMIT, _KEPT, _COUNT, _CLOCK, _BUSY = pool._LIMIT, pool._KEPT, pool._COUNT, pool._CLOCK, pool._BUSY
_BLOCKS, _EACH = np.uint64(pool._BLOCKS), np.uint64(pool._EACH)

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


@intrinsic
def _exchange(typing, state, value):  # type: ignore[no-untyped-def]
    """Set ``state[_BUSY]``, at once for all threads; what it was before."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("xchg", builder.gep(args[0], [ir.Constant(ir.IntType(64), _BUSY)]), args[1], "acq_rel")

    return _WORD(_STATE, _WORD), generate


@jit.inlined
def _taken(state, i):  # type: ignore[no-untyped-def]
    """The address of block i, which is then no longer kept."""
    at = _BLOCKS + _EACH * i
    address, size = state[at], state[at + _ONE]
    state[_COUNT] -= _ONE
    state[_KEPT] -= size
    end = _BLOCKS + _EACH * state[_COUNT]
    while at < end:
        state[at] = state[at + _EACH]
        at += _ONE
    return address


@jit.inlined
def _fitting(state, size):  # type: ignore[no-untyped-def]
    """The block that was freed last of those that are large enough, and not much larger: it is the likeliest to be in the cache. 0 if there is none."""
    found = _NONE
    if size >= _LEAST and _exchange(state, _ONE) == _NONE:
        i = state[_COUNT]
        while i > _NONE and found == _NONE:
            i -= _ONE
            have = state[_BLOCKS + _EACH * i + _ONE]
            if have >= size and have - size <= size >> np.uint64(3):
                found = _taken(state, i)
        _exchange(state, _NONE)
    return found


@jit.inlined
def _drop(state):  # type: ignore[no-untyped-def]
    """Free the oldest block."""
    have = state[_BLOCKS + _ONE]
    _call(state[4], state[0], _taken(state, _NONE), have)


def _release(state):  # type: ignore[no-untyped-def]
    if _exchange(state, _ONE) == _NONE:
        while state[_COUNT] > _NONE:
            _drop(state)
        _exchange(state, _NONE)


_released = jit.inlined(_release)


def _malloc(state, size):  # type: ignore[no-untyped-def]
    block = _fitting(state, size)
    if block == _NONE:
        block = _call(state[1], state[0], size, _NONE)
    if block == _NONE:  # there is no memory: not while we sit on some
        _released(state)
        block = _call(state[1], state[0], size, _NONE)
    return block


def _calloc(state, count, size):  # type: ignore[no-untyped-def]
    """Fresh pages are zero already, but each costs more when it is first written than filling one that is there."""
    block = _NONE
    if size == _NONE or count <= np.uint64(2**62) // size:
        block = _fitting(state, count * size)
    if block != _NONE:
        return memset(block, np.int32(0), count * size)
    block = _call(state[2], state[0], count, size)
    if block == _NONE:
        _released(state)
        block = _call(state[2], state[0], count, size)
    return block


def _realloc(state, block, size):  # type: ignore[no-untyped-def]
    other = _call(state[3], state[0], block, size)
    if other == _NONE and size > _NONE:  # the block is still what it was
        _released(state)
        other = _call(state[3], state[0], block, size)
    return other


def _free(state, block, size):  # type: ignore[no-untyped-def]
    have = usable_size(block) if size >= _LEAST and block != _NONE else _NONE
    if have < _LEAST or have > state[_LIMIT] or _exchange(state, _ONE) != _NONE:
        _call(state[4], state[0], block, size)
        return
    at = _BLOCKS + _EACH * state[_COUNT]
    now = state[_CLOCK] + _ONE
    state[at], state[at + _ONE], state[at + _ONE + _ONE] = block, have, now
    state[_COUNT] += _ONE
    state[_KEPT] += have
    state[_CLOCK] = now
    while state[_KEPT] > state[_LIMIT] or state[_COUNT] > _SLOTS or now - state[_BLOCKS + _ONE + _ONE] > _PATIENCE:
        _drop(state)
    _exchange(state, _NONE)


def functions() -> tuple[list[Any], list[int]]:
    """What must stay alive; the addresses of malloc, calloc, realloc and free, and of a function that frees all blocks."""
    alive: list[Any] = []
    addresses: list[int] = []
    for f, words in ((_malloc, 1), (_calloc, 2), (_realloc, 2), (_free, 2), (_release, 0)):
        dispatcher = jit.compiled(f)
        signature = (_STATE, *[_WORD] * words)
        dispatcher.compile(signature)
        result = dispatcher.overloads[signature]
        alive += [dispatcher, result]
        addresses.append(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))
    return alive, addresses
