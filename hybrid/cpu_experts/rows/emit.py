"""LLVM IR of one C function, written in Python: loops, memory, vectors.

Python is the macro language here. A `for` of Python repeats code, `Code.loop` emits a loop; a value
is an LLVM value, an address an i64. What is emitted is what runs: neither vectoriser nor unroller
comes after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, VOID = ir.FloatType(), ir.VoidType()
Body = Callable[[Any, list[Any]], Sequence[Any]]


def vector(kind: Any, lanes: int) -> Any:
    """The type of `lanes` elements of a kind."""
    return ir.VectorType(kind, lanes)


class Code:
    """A function `void name(i64, …)` under construction; `b` is llvmlite's builder."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.module = ir.Module(name)
        kind = ir.FunctionType(VOID, [I64] * len(arguments))
        self._function = ir.Function(self.module, kind, name)
        for argument, label in zip(self._function.args, arguments, strict=True):
            argument.name = label
        self.arguments = self._function.args
        self.b = ir.IRBuilder(self._function.append_basic_block("entry"))

    def text(self) -> str:
        """The finished module."""
        self.b.ret_void()
        return str(self.module)

    def at(self, address: Any, offset: Any, kind: Any) -> Any:
        """Pointer to a `kind` at address + offset bytes."""
        base = self.b.inttoptr(address, I8.as_pointer())
        distance = I64(offset) if isinstance(offset, int) else offset
        return self.b.bitcast(self.b.gep(base, [distance]), kind.as_pointer())

    def load(self, address: Any, offset: Any, kind: Any, align: int = 1) -> Any:
        """The `kind` at address + offset."""
        value = self.b.load(self.at(address, offset, kind))
        value.align = align
        return value

    def store(self, value: Any, address: Any, offset: Any, align: int = 1) -> None:
        """Write a value at address + offset."""
        self.b.store(value, self.at(address, offset, value.type)).align = align

    def constant(self, kind: Any, value: Any) -> Any:
        """A vector of equal elements."""
        return ir.Constant(kind, [value] * kind.count)

    def splat(self, scalar: Any, lanes: int) -> Any:
        """A scalar in every lane."""
        kind = vector(scalar.type, lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.b.insert_element(undefined, scalar, I32(0))
        return self.b.shuffle_vector(one, undefined, self.constant(vector(I32, lanes), 0))

    def call(self, name: str, result: Any, *values: Any) -> Any:
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [value.type for value in values])
        known = self.module.globals.get(name)
        return self.b.call(known or ir.Function(self.module, kind, name), values)

    def prefetch(self, address: Any, offset: int) -> None:
        """Ask for a cache line, which need not be readable memory."""
        pointer = self.at(address, offset, I8)
        hint = I32(0), I32(3), I32(1)  # read, keep in all levels, data
        self.call("llvm.prefetch.p0", VOID, pointer, *hint)

    def stack(self, nbytes: int) -> Any:
        """Address of memory that lives as long as the call, on a cache line."""
        with self.b.goto_entry_block():
            memory = self.b.alloca(ir.ArrayType(I8, nbytes))
            memory.align = 64
            return self.b.ptrtoint(memory, I64)

    def opaque(self, address: Any) -> Any:
        """The same address in a register of its own.

        LLVM would express neighbouring addresses as one register plus distances of four bytes each;
        distances of one byte are what keeps the inner loop in AMD's µop cache.
        """
        same = ir.InlineAsm(ir.FunctionType(I64, [I64]), "", "=r,0", side_effect=True)
        return self.b.call(same, [address])

    def loop(self, start: Any, end: Any, step: int, values: Sequence[Any], body: Body) -> list[Any]:
        """`values = body(index, values)` for index = start, start + step, … < end; at least once.

        Returns the values after the last round.
        """
        before = self.b.block
        block = self._function.append_basic_block("loop")
        after = self._function.append_basic_block("after")
        self.b.branch(block)
        self.b.position_at_end(block)
        index = self.b.phi(I64)
        carried = [self.b.phi(value.type) for value in values]
        results = list(body(index, list(carried)))
        following = self.b.add(index, I64(step))
        last = self.b.block
        index.add_incoming(start, before)
        index.add_incoming(following, last)
        for phi, first, result in zip(carried, values, results, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(result, last)
        self.b.cbranch(self.b.icmp_signed("<", following, end), block, after)
        self.b.position_at_end(after)
        return results

    def unless_empty(self, count: Any, emit: Callable[[], None]) -> None:
        """Run what `emit` emits if count > 0."""
        with self.b.if_then(self.b.icmp_signed(">", count, I64(0))):
            emit()

    def switch(self, value: Any, cases: dict[int, Callable[[], None]], other: Any) -> None:
        """Emit one branch for each case, and one for all other values."""
        after = self._function.append_basic_block("joined")
        default = self._function.append_basic_block("other")
        choice = self.b.switch(value, default)
        for case, emit in (*cases.items(), (None, other)):
            block = default if case is None else self._function.append_basic_block("case")
            if case is not None:
                choice.add_case(I64(case), block)
            self.b.position_at_end(block)
            emit()
            self.b.branch(after)
        self.b.position_at_end(after)
