"""Every kernel's machine code, executed on the least CPU that announces its instruction set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hybrid.cpu_experts.isas import ISAS
from hybrid.cpu_experts.machine_code import object_code
from hybrid.cpu_experts.rows.direct import MAX_ROWS
from tests.emulation.cases import (
    EXTREMES,
    MODES,
    Case,
    extreme_case,
    planes,
    random_case,
    unit_case,
)
from tests.emulation.machine import Buffer, Outcome
from tests.emulation.runner import TIMEOUT_S, Call, Job, run
from tests.reference.rows16 import ROWS

BLOCKS_AT, GROUPS_AT, TOKENS_AT = 1, 2, 7  # places among the arguments of rows16

MINIMAL = {  # instruction set -> CPU model
    "avx2": "haswell",
    "avxvnni": "arrow_lake",
    "avx512bw": "skylake_x",
    "avx512vnni": "tigerlake",
    "amx": "sapphire_rapids",  # its tile instructions in software
}
GROUPS = (1, 2, 3, 7)
TOKENS = (*range(1, 10), 15, 16, 17, 31, 33, 63, 64)  # every remainder of 2, 4, 8 and 16
BLOCKS = (2, 3, 4, 5, 9)  # beside 1: shapes take 4 at a time, then what is left
FEW, SOME = (1, 4, 17, 64), (1, 2, 3, 4, 5, 17, 64)
LONG = 33  # groups, with few tokens
TRUE_SIZES = {"gate and up": 224, "down": 64}  # groups of K2.5's 7168 and 2048 inputs
UNIT_GROUPS = {"int8": 33, "int16": 33, "bf16": 7}


@dataclass(frozen=True, slots=True)
class Run:
    """A case, where its buffers lie, and what came of it."""

    name: str
    case: Case
    outcome: Outcome

    @property
    def out(self) -> np.ndarray:
        return self.outcome.arrays[0]


def call_of(isa: str, case: Case, at_end: bool = True, limit: int | None = None) -> Call:
    """rows16 with buffers of exactly the size that it may touch."""
    blocks, groups, n = case.shape
    acts = acts_for(isa, case)
    memory = acts if acts.flags.c_contiguous else acts.T
    out = np.full((n, blocks * ROWS), np.nan, np.float32)
    arguments = (
        Buffer(case.packed, False, at_end), blocks, groups, Buffer(memory, False, at_end),
        *acts.strides, Buffer(case.index, False, at_end), n, Buffer(out, True, at_end),
    )  # fmt: skip
    return Call(arguments, MODES.index(case.mode), branch_limit=limit)


def acts_for(isa: str, case: Case) -> np.ndarray:
    """The activations as the layer gives them to a kernel for so many tokens: rows, or a panel."""
    if len(case.index) <= MAX_ROWS or case.mode == "bf16":
        return case.acts
    acts = np.array(case.acts.T, order="C").T  # group by group in memory
    if not ISAS[isa].many.biased:
        return acts
    for plane in planes(case.mode):
        acts[plane] ^= -128  # + 128, as unsigned bytes
    return acts


Plan = dict[str, tuple[Case, bool]]  # name -> case, and whether buffers touch the page behind them


def plan(mode: str) -> Plan:
    """Sizes, placements and extremes of every test run."""
    cases: Plan = {}
    for groups in GROUPS:
        cases |= _random(mode, 1, groups, TOKENS)
    for blocks in BLOCKS:
        cases |= _random(mode, blocks, 3, SOME)
    cases |= _random(mode, 4, LONG, FEW)
    for n in (1, 4, 17):
        before = random_case(mode, 5, 3, TOKENS[-1]).first(n)
        cases[f"placed behind an unmapped page, {n} tokens"] = before, False
        for name in EXTREMES:
            cases[f"{name}, {n} tokens"] = extreme_case(name, mode, 5, 3, n), True
    return cases


def _random(mode: str, blocks: int, groups: int, tokens: Sequence[int]) -> Plan:
    whole = random_case(mode, blocks, groups, TOKENS[-1])
    return {
        f"random, {blocks} blocks, {groups} groups, {n} tokens": (whole.first(n), True)
        for n in tokens
    }


def unit_plan(mode: str) -> Plan:
    """Cases whose results are integers below 2^24."""
    cases = {f"unit, {n} tokens": (unit_case(mode, UNIT_GROUPS[mode], n), True) for n in FEW}
    for name in ("all -8, largest", "all -8, least", "all +7, largest", "all +7, least", "opposed"):
        for n in (4, 5):
            groups = 1 if mode == "int16" else LONG
            cases[f"unit, {name}, {n} tokens"] = unit_case(mode, groups, n, name), True
    return cases


def true_size_plan(mode: str) -> Plan:
    """Row blocks of K2.5."""
    return {
        f"{name}, {n} tokens": (random_case(mode, 2, groups, 9).first(n), True)
        for name, groups in TRUE_SIZES.items()
        for n in (1, 4, 9)
    }


def everything_plan(mode: str) -> Plan:
    """Every combination of sizes, and every extreme with every number of tokens."""
    cases: Plan = {}
    for groups in (*GROUPS, LONG):
        for blocks in (1, *BLOCKS):
            cases |= _random(mode, blocks, groups, TOKENS)
    for name in EXTREMES:
        for n in TOKENS:
            cases[f"{name}, {n} tokens"] = extreme_case(name, mode, 5, 7, n), True
    return cases


@cache
def executed(isa: str, everything: bool = False) -> dict[str, list[Run]]:
    """Mode -> runs, all of them in one process with the instruction set's minimal CPU."""
    plans = (everything_plan,) if everything else (plan, unit_plan, true_size_plan)
    named = [
        (mode, name, *case)
        for mode in MODES
        for planned in plans
        for name, case in planned(mode).items()
    ]
    calls = [call_of(isa, case, at_end) for _, _, case, at_end in named]
    timeout_s = 3000 if everything else TIMEOUT_S
    runs: dict[str, list[Run]] = {mode: [] for mode in MODES}
    for (mode, name, case, _), outcome in zip(named, emulate(isa, calls, timeout_s), strict=True):
        runs[mode].append(Run(name, case, outcome))
    return runs


@cache
def executed_beyond(isa: str) -> dict[str, list[bool]]:
    """Mode -> did it offend: as it should be, with one block, one group, one token too many."""
    calls = []
    for mode in MODES:
        right = call_of(isa, random_case(mode, 2, 2, 7))
        for at in (None, BLOCKS_AT, GROUPS_AT, TOKENS_AT):
            arguments = list(right.arguments)
            if at is not None:
                arguments[at] += 1
            calls.append(replace(right, arguments=tuple(arguments)))
    offended = [bool(outcome.offences) for outcome in emulate(isa, calls)]
    return {mode: offended[4 * i : 4 * i + 4] for i, mode in enumerate(MODES)}


def emulate(isa: str, calls: Sequence[Call], timeout_s: float = TIMEOUT_S) -> list[Outcome]:
    """Calls of the kernels of an instruction set; program i is that of mode i."""
    programs = tuple(object_code(isa, mode) for mode in MODES)
    return run(Job(MINIMAL[isa], programs, tuple(calls), soft_amx=isa == "amx"), timeout_s)
