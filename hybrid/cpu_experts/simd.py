"""SIMD value types for numba: a value is one vector register, an operation one instruction or few.

    f32x8   i32x8        (LLVM vectors; signedness lives in the operation)

These operations exist on every machine, because LLVM splits a vector that the machine lacks. What
only some CPUs can is said in rows/, in a vocabulary of its own.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

from hybrid.cpu_experts.native import element

_ELEMENT = {"i32": ir.IntType(32), "f32": ir.FloatType()}


class Vec(types.Type):  # type: ignore[misc]
    """A vector of `lanes` elements."""

    def __init__(self, kind: str, lanes: int) -> None:
        self.kind, self.lanes = kind, lanes
        self.llvm = ir.VectorType(_ELEMENT[kind], lanes)
        super().__init__(name=f"{kind}x{lanes}")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


f32x8, i32x8 = Vec("f32", 8), Vec("i32", 8)


def _operation(emit: Callable[..., Any], result: Vec | None = None) -> Any:
    """Build an intrinsic from `emit(builder, *values)`; the result has the first value's type."""

    def signature(*values: Vec) -> Any:
        if not all(isinstance(value, Vec) for value in values):
            raise TypingError("SIMD operations take SIMD values")

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(builder, *args)

        return (result or values[0])(*values), codegen

    if emit.__code__.co_argcount == 2:
        return intrinsic(lambda typing, a: signature(a))
    return intrinsic(lambda typing, a, b: signature(a, b))


def _by_kind(on_float: str, on_integer: str) -> Callable[[Any, Any, Any], Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        name = on_float if isinstance(a.type.element, ir.FloatType) else on_integer
        return getattr(builder, name)(a, b)

    return emit


def _unsigned_max(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned(">", a, b), a, b)


def _signed_max(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _signed_min(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _float_max(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


def _float_min(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), b, a)


def _unless_nan(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_unordered("uno", a, a), a, b)


add = _operation(_by_kind("fadd", "add"))
sub = _operation(_by_kind("fsub", "sub"))
mul = _operation(_by_kind("fmul", "mul"))
div = _operation(lambda builder, a, b: builder.fdiv(a, b))
bit_and = _operation(lambda builder, a, b: builder.and_(a, b))
bit_xor = _operation(lambda builder, a, b: builder.xor(a, b))
unless_nan = _operation(_unless_nan)  # b, but a where a is NaN
max_unsigned = _operation(_unsigned_max)
max_signed = _operation(_signed_max)
min_signed = _operation(_signed_min)
at_least = _operation(_float_max)  # max(a, b), but NaN where a is NaN
at_most = _operation(_float_min)  # min(a, b), but NaN where a is NaN
bits_of = _operation(lambda builder, a: builder.bitcast(a, i32x8.llvm), i32x8)
floats_of = _operation(lambda builder, a: builder.bitcast(a, f32x8.llvm), f32x8)


def _shift(name: str) -> Any:
    @intrinsic
    def shift(typing: Any, value: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lane = builder.trunc(args[1], args[0].type.element)
            return getattr(builder, name)(args[0], _splat(builder, lane, args[0].type))

        return value(value, types.intp), codegen

    return shift


def _splat(builder: Any, lane: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), lane, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


shift_left, shift_right = _shift("shl"), _shift("lshr")  # right fills with zeros


def _broadcast(kind: Vec, scalar: Any) -> Any:
    @intrinsic
    def broadcast(typing: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _splat(builder, args[0], kind.llvm)

        return kind(scalar), codegen

    return broadcast


splat_f32 = _broadcast(f32x8, types.float32)
splat_i32 = _broadcast(i32x8, types.int32)


@intrinsic
def load_f32x8(typing: Any, base: Any, offset: Any) -> Any:
    """Eight floats at base + offset bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = element(builder, args[0], args[1], ir.IntType(8))
        value = builder.load(builder.bitcast(at, f32x8.llvm.as_pointer()))
        value.align = 1
        return value

    return f32x8(types.intp, types.intp), codegen


def _vector_store(kind: Vec, memory: Any) -> Any:
    @intrinsic
    def store(typing: Any, base: Any, offset: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            bits = args[2] if memory == kind.llvm else builder.trunc(args[2], memory)
            at = element(builder, args[0], args[1], ir.IntType(8))
            builder.store(bits, builder.bitcast(at, memory.as_pointer())).align = 1
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, kind), codegen

    return store


store_f32x8 = _vector_store(f32x8, f32x8.llvm)
store_low_bytes = _vector_store(i32x8, ir.VectorType(ir.IntType(8), 8))  # 8 x i32 -> 8 bytes


def _reduce(name: str, scalar: Any) -> Any:
    @intrinsic
    def reduce(typing: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.IntType(32), [i32x8.llvm])
            function = f"llvm.vector.reduce.{name}.v8i32"
            return builder.call(
                cgutils.get_or_insert_function(builder.module, kind, function), args
            )

        return scalar(i32x8), codegen

    return reduce


sum_lanes, max_lane = _reduce("add", types.int32), _reduce("umax", types.uint32)
