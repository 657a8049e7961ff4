"""What numba has no word for: raw memory, atomics, calls by address and the kernel's futex.

Compiled code here works on addresses (intp). A load or store takes a base address and an index in
elements, so that LLVM sees one pointer and an induction variable. Nothing is bounds-checked: every
caller derives its addresses from shapes that `layer.py` has validated.
"""

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_LLVM = {
    types.int8: ir.IntType(8),
    types.uint8: ir.IntType(8),
    types.uint16: ir.IntType(16),
    types.int32: ir.IntType(32),
    types.uint32: ir.IntType(32),
    types.int64: ir.IntType(64),
    types.float32: ir.FloatType(),
}
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}  # number of futex(2) per machine
_WAIT_PRIVATE, _WAKE_PRIVATE = 128, 129

HAS_FUTEX = sys.platform == "linux" and platform.machine() in _SYS_FUTEX


def element(builder: Any, base: Any, index: Any, kind: Any) -> Any:
    """Pointer to element `index` of an array of `kind` at address `base`."""
    return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])


def _load(kind: Any) -> Any:
    @intrinsic
    def load(typing: Any, base: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = builder.load(element(builder, args[0], args[1], _LLVM[kind]))
            value.align = 1
            return value

        return kind(types.intp, types.intp), codegen

    return load


def _store(kind: Any) -> Any:
    @intrinsic
    def store(typing: Any, base: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[2], element(builder, args[0], args[1], _LLVM[kind])).align = 1
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, kind), codegen

    return store


load_i8 = _load(types.int8)
load_u8 = _load(types.uint8)
load_u16 = _load(types.uint16)
load_i32 = _load(types.int32)
load_u32 = _load(types.uint32)
load_i64 = _load(types.int64)
load_f32 = _load(types.float32)
store_u8 = _store(types.uint8)
store_u16 = _store(types.uint16)
store_i32 = _store(types.int32)
store_u32 = _store(types.uint32)
store_i64 = _store(types.int64)
store_f32 = _store(types.float32)


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """The float32 whose bits are the given uint32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


def pointer_to(kind: Any) -> Any:
    """Build the intrinsic that turns an address into a pointer to `kind`."""

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(kind)(types.intp), codegen

    return pointer


def _atomic(kind: Any, operation: str) -> Any:
    @intrinsic
    def rmw(typing: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], _LLVM[kind].as_pointer())
            return builder.atomic_rmw(operation, pointer, args[1], "seq_cst")

        return kind(types.intp, kind), codegen

    return rmw


atomic_add_i32 = _atomic(types.int32, "add")
atomic_and_i32 = _atomic(types.int32, "and")
atomic_swap_i32 = _atomic(types.int32, "xchg")
atomic_add_i64 = _atomic(types.int64, "add")


@intrinsic
def atomic_load_i32(typing: Any, address: Any) -> Any:
    """Sequentially consistent read."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 4)

    return types.int32(types.intp), codegen


@intrinsic
def compare_and_swap_i32(typing: Any, address: Any, old: Any, new: Any) -> Any:
    """True if the word held `old` and now holds `new`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        pair = builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.int32, types.int32), codegen


@intrinsic
def pause(typing: Any) -> Any:
    """Tell the core that this is a spin loop; nothing where there is no such instruction."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if platform.machine() == "x86_64":
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(
                cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), []
            )
        return context.get_dummy_value()

    return types.void(), codegen


def _call(builder: Any, function: Any, arguments: Any) -> Any:
    word = ir.IntType(64)
    kind = ir.FunctionType(ir.VoidType(), [word] * len(arguments))
    return builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)


@intrinsic
def call_kernel(typing: Any, function: Any, job: Any, unit: Any, worker: Any) -> Any:
    """Call the C function kernel(job, unit, worker) by its address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def call_rows16(
    typing: Any,
    function: Any,
    block: Any,
    blocks: Any,
    groups: Any,
    acts: Any,
    stride: Any,
    step: Any,
    index: Any,
    n: Any,
    out: Any,
) -> Any:
    """Call the C function rows16(block, blocks, ...) by its address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen


def _futex(builder: Any, address: Any, operation: int, value: Any) -> None:
    word, number = ir.IntType(64), _SYS_FUTEX[platform.machine()]
    kind = ir.FunctionType(word, [word], var_arg=True)
    syscall = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    builder.call(syscall, [word(number), address, word(operation), value, word(0)])


def _usleep(builder: Any, microseconds: int) -> None:
    word = ir.IntType(32)
    kind = ir.FunctionType(word, [word])
    builder.call(
        cgutils.get_or_insert_function(builder.module, kind, "usleep"), [word(microseconds)]
    )


@intrinsic
def sleep_while(typing: Any, address: Any, value: Any) -> Any:
    """Sleep while the word holds `value`; may return early, so callers loop."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if HAS_FUTEX:
            _futex(builder, args[0], _WAIT_PRIVATE, builder.sext(args[1], ir.IntType(64)))
        else:
            _usleep(builder, 200)
        return context.get_dummy_value()

    return types.void(types.intp, types.int32), codegen


@intrinsic
def nap(typing: Any) -> Any:
    """Sleep 200 microseconds: what waiting is made of where there is no futex."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _usleep(builder, 200)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def wake_all(typing: Any, address: Any) -> Any:
    """Wake every thread that sleeps on the word."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if HAS_FUTEX:
            _futex(builder, args[0], _WAKE_PRIVATE, ir.IntType(64)(2**31 - 1))
        return context.get_dummy_value()

    return types.void(types.intp), codegen
