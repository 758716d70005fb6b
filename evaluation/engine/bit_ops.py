"""Processor instructions on 64-bit words that Numba has no name for."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD = ir.IntType(64)

ONE = np.uint64(1)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Return how many zero bits follow the lowest set bit of a uint64; undefined for 0."""
    del typing_context, word

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """Return how many zero bits precede the highest set bit of a uint64; undefined for 0."""
    del typing_context, word

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def set_bits(typing_context: Any, word: Any) -> Any:
    """Return how many bits of a uint64 are set."""
    del typing_context, word

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def load_word(typing_context: Any, array: Any, index: Any) -> Any:
    """Return the 8 bytes of a C-contiguous array of one axis that start at an item, aligned or not, as a uint64."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        item = builder.gep(data, [arguments[1]])
        word = builder.load(builder.bitcast(item, _WORD.as_pointer()))
        word.align = 1
        return word

    return types.uint64(array, types.intp), generate
