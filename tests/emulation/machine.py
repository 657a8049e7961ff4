"""One emulated CPU that calls a C function and says everything that went wrong.

    machine = Machine("haswell")                        # once in a process
    symbols = machine.load(object_bytes)                # ELF object -> {name: address}
    outcome = machine.call(symbols["rows16"], [Buffer(block), 3, Buffer(out, writable=True)])

64-bit mode, ring 0, page tables of our own. Every buffer touches an unmapped page, buffers that
are only read cannot be written, and on return the rules of the System V ABI are checked: registers
that the callee must preserve, the caller's stack, the direction flag, the rounding mode, and upper
halves of vector registers that would slow down the caller's SSE code.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.emulation import bochs, elf
from tests.emulation.memory import (
    CANARY,
    RETURN_AT,
    ROOT_TABLE,
    STACK_AT,
    GuestAccessError,
    Memory,
    Region,
)

ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
PRESERVED = {
    name: 0xC0DE_0000_0000_0000 + i
    for i, name in enumerate(("rbx", "rbp", "r12", "r13", "r14", "r15"))
}
FAULTS = {0: "#DE", 1: "#DB", 3: "#BP", 6: "#UD", 7: "#NM", 8: "#DF", 12: "#SS", 13: "#GP",
          14: "#PF", 16: "#MF", 17: "#AC", 19: "#XM"}  # fmt: skip
UNDEFINED_INSTRUCTION, PAGE_FAULT = 6, 14
ENDLESS = -1  # our own number: more branches than allowed

CR0, CR4, EFER = 0x8005_0033, 0x0004_0620, 0xD01  # paging, SSE, XSAVE; long mode
XCR0_AVX, XCR0_AVX512 = 0x7, 0xE7
MXCSR, MXCSR_CONTROL = 0x1F80, 0xFFC0  # round to nearest, no flush to zero; the control bits
DIRECTION_FLAG, RESERVED_FLAG = 0x400, 2
CALLER_FRAME = 256  # bytes above the return address


@dataclass(frozen=True, slots=True)
class Buffer:
    """An array to pass by address; its bytes come back where they may be written."""

    array: np.ndarray
    writable: bool = False
    at_end: bool = True  # touches the unmapped page behind it, else the one before it


Argument = Buffer | int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call did: the arrays of its writable buffers, in order, and its offences."""

    arrays: tuple[np.ndarray, ...] = ()
    offences: tuple[str, ...] = ()
    trapped: dict[str, int] = field(default_factory=dict)  # instructions run for the CPU


Trap = Callable[["Machine", Any], str | None]  # runs one undefined instruction, gives its name


class Machine:
    """The emulated CPU; a process can have one."""

    def __init__(self, model: str, trap: Trap | None = None) -> None:
        self._bochs = bochs.load()
        bochs.select_model(self._bochs, model)
        self._session = self._bochs.Session()
        self._trap = trap
        self._xcr0 = XCR0_AVX if model in ("haswell", "arrow_lake") else XCR0_AVX512
        self.memory = Memory(self._bochs.memory.page_insert)

    def load(self, data: bytes) -> dict[str, int]:
        """Link an ELF object into executable, read-only memory."""
        return elf.link(data, self.memory.place_code)

    def call(
        self, address: int, arguments: Sequence[Argument], branch_limit: int | None = None
    ) -> Outcome:
        """Call a C function that returns nothing. A limit on branches costs much time."""
        regions: list[tuple[Buffer, Region]] = []
        words = []
        for argument in arguments:
            if isinstance(argument, Buffer):
                regions.append((argument, self._copied_in(argument)))
                words.append(regions[-1][1].address)
            else:
                words.append(argument)
        try:
            return self._called(address, words, regions, branch_limit)
        finally:
            for _, region in regions:
                self.memory.free(region)

    def _copied_in(self, buffer: Buffer) -> Region:
        data = np.ascontiguousarray(buffer.array).reshape(-1).view(np.uint8)
        region = self.memory.allocate(len(data), writable=buffer.writable, at_end=buffer.at_end)
        region.view[:] = data
        return region

    def _called(
        self,
        address: int,
        words: list[int],
        regions: list[tuple[Buffer, Region]],
        branch_limit: int | None,
    ) -> Outcome:
        stack = self._frame(words[len(ARGUMENTS) :])
        cpu = self._session.cpu
        cpu.set_state(self._entry_state(address, words, stack))
        cpu.set_mode()
        trapped: dict[str, int] = {}
        fault = self._run(cpu, trapped, branch_limit)
        callers = stack + 8 + 8 * len(words[len(ARGUMENTS) :])
        offences = [fault] if fault else self._broken_rules(cpu.state, stack, callers)
        offences += [
            f"bytes beside buffer {i} were overwritten"
            for i, (_, region) in enumerate(regions)
            if not region.intact
        ]
        arrays = tuple(
            region.view.copy().view(buffer.array.dtype).reshape(buffer.array.shape)
            for buffer, region in regions
            if buffer.writable
        )
        return Outcome(arrays, tuple(offences), trapped)

    def _frame(self, words: list[int]) -> int:
        """A stack whose top is the return address, then arguments; gives its address, 16 n + 8."""
        view = self.memory.stack.view
        top = len(view) - CALLER_FRAME - 8
        content = struct.pack(f"<{1 + len(words)}Q", RETURN_AT, *words)
        view[:] = CANARY  # below it as well: nobody may count on a clean stack
        view[top : top + len(content)] = np.frombuffer(content, np.uint8)
        return STACK_AT + top

    def _entry_state(self, address: int, words: list[int], stack: int) -> Any:
        state = self._bochs.State()
        state.cr0, state.cr4, state.efer, state.cr3 = CR0 & ~8, CR4, EFER, ROOT_TABLE
        state.xcr0, state.mxcsr, state.mxcsr_mask = self._xcr0, MXCSR, 0xFFFF
        state.fpcw, state.fptw, state.rflags = 0x37F, 0xFFFF, RESERVED_FLAG
        state.cs = self._segment(0x10, 0xA09B)
        data = self._segment(0x18, 0xC093)
        state.ds = state.es = state.ss = state.fs = state.gs = data
        for name, word in zip(ARGUMENTS, words, strict=False):
            setattr(state, name, word)
        for name, word in PRESERVED.items():
            setattr(state, name, word)
        state.rsp, state.rip = stack, address
        return state

    def _segment(self, selector: int, attributes: int) -> Any:
        segment = self._bochs.Segment()
        segment.present, segment.selector, segment.base = True, selector, 0
        segment.limit, segment.attr = 0xFFFF_FFFF, attributes
        return segment

    def _run(self, cpu: Any, trapped: dict[str, int], branch_limit: int | None) -> str | None:
        """Until the function returns; what stopped it if that was something else."""
        while True:
            fault = self._until_stopped(branch_limit)
            if fault is None:
                return None
            vector, code = fault
            # Bochs stops with RIP behind the offending instruction: there it goes on after a trap.
            try:
                known = vector == UNDEFINED_INSTRUCTION and self._trap is not None
                name = self._trap(self, cpu) if known else None
            except GuestAccessError as error:
                return str(error)
            if name is None:
                return self._described(cpu, vector, code)
            trapped[name] = trapped.get(name, 0) + 1

    def _until_stopped(self, branch_limit: int | None) -> tuple[int, int] | None:
        faults: list[tuple[int, int]] = []
        hook = self._bochs.Hook()

        def stop(session: Any, vector: int, error: int) -> None:
            faults.append((int(vector), int(error)))
            session.stop()

        hook.exception = lambda session, cpu, vector, error: stop(session, vector, error)
        hook.hlt = lambda session, cpu: session.stop()
        if branch_limit is not None:
            left = iter(range(branch_limit))

            def taken(session: Any, *_: Any) -> None:
                if next(left, None) is None:
                    stop(session, ENDLESS, 0)

            hook.cnear_branch_taken = taken
            hook.ucnear_branch = taken
        self._session.run([hook])
        return faults[0] if faults else None

    def _described(self, cpu: Any, vector: int, error: int) -> str:
        if vector == ENDLESS:
            return "more branches than allowed"
        text = f"{FAULTS.get(vector, vector)} before {cpu.rip:#x}"
        text += f", behind {self.memory.before(cpu.rip, 15).hex()}"
        if vector == PAGE_FAULT:
            text += f", {'write to' if error & 2 else 'read of'} {cpu.cr2:#x}"
        return text

    def _broken_rules(self, end: Any, stack: int, callers: int) -> list[str]:
        """The return address lay at `stack`; from `callers` on, the stack is the caller's."""
        saved = [
            name for name, word in (*PRESERVED.items(), ("rsp", stack + 8))
            if getattr(end, name) != word
        ]  # fmt: skip
        above = self.memory.stack.view[callers - STACK_AT :]
        rules = {
            f"clobbered {', '.join(saved)}": bool(saved),
            "wrote to the caller's stack": bool((above != CANARY).any()),
            "left the direction flag set": bool(end.rflags & DIRECTION_FLAG),
            "changed the rounding mode": (end.mxcsr ^ MXCSR) & MXCSR_CONTROL != 0,
            "returned without vzeroupper": any(any(z.q[2:]) for z in list(end.zmm)[:16]),
        }
        return [text for text, broken in rules.items() if broken]
