"""What the inner loops of the experts' kernels cost on paper: instructions, spills, cycles.

    python bench/inner_loop.py [--isa avx2,avx512vnni] [--activation int8,int16] [--cpu znver3]

Reads the assembly of `rows16`, finds the smallest loops that multiply, and counts what they execute
for PER int8 multiply-accumulates (an int16 activation needs two of them). Cycles are llvm-mca's
estimate with everything in the L1 cache: no caches, no prefetch, no clock. They are left out where
llvm-mca is not installed or the CPU lacks the instruction set (llvm-mca invents figures for those),
and for tiles, which it does not model. A loop marked + contains smaller ones that do not multiply;
one turn of them is counted.

Prints a table a kernel, and one JSON line last.
"""

import argparse
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass

from environment import environment

from hybrid.cpu_experts.machine_code import assembly

PER = 256  # multiply-accumulates
TURNS = 200  # of a loop that llvm-mca walks through
CPUS = {  # by LLVM's names, with the kernels that run there
    "znver3": ("avx2",),
    "haswell": ("avx2",),
    "alderlake": ("avx2", "avxvnni"),
    "skylake-avx512": ("avx2", "avx512bw"),
    "icelake-server": ("avx2", "avx512bw", "avx512vnni"),
    "sapphirerapids": ("avx2", "avxvnni", "avx512bw", "avx512vnni", "amx"),
}
TILE_MACS = 16 * 16 * 64
KINDS = {  # what a mnemonic is for; the first match counts
    "product": r"vpmaddubsw|vpdpbusd|tdpb|v\w*dotp",
    "widen": r"vpmaddwd|vcvt|vpmov[sz]x",
    "nibble": r"vpand|vpternlog|vps[rl]l|vpshuf|vpxor|vpor",
    "add": r"vpadd|vpsub",
    "float": r"v(add|sub|mul|div|f\w+)[ps]s",
    "spread": r"v?p?broadcast|vpbroadcast|vbroadcast",
    "move": r"v?mov|tileload|tilestore|tilezero|vperm|vpunpck|vinsert|vextract",
    "prefetch": r"prefetch",
}
LABEL = re.compile(r"(\.L\w+):")
JUMP = re.compile(r"j\w+\s+(\.L\w+)$")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that multiplies, and within which no other does: from its label to the jump back."""

    label: str
    lines: tuple[str, ...]  # instructions, without labels and the jump back

    @property
    def macs(self) -> int:
        """int8 multiply-accumulates of one turn."""
        return sum(_macs(line) for line in self.lines)


def loops(text: str) -> list[Loop]:
    """The smallest loops of an assembly text that multiply."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    labels = {found[1]: i for i, line in enumerate(lines) if (found := LABEL.match(line))}
    jumps = ((i, JUMP.match(line)) for i, line in enumerate(lines))
    spans = [(labels[to[1]], at) for at, to in jumps if to and labels.get(to[1], at) < at]
    multiplying = [span for span in spans if any(_macs(line) for line in lines[slice(*span)])]
    return [
        Loop(lines[start].rstrip(":") + "+" * _contains(start, end, spans),
             _instructions(lines[start:end]))
        for start, end in multiplying
        if not _contains(start, end, multiplying)
    ]  # fmt: skip


def _contains(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether one of the spans lies within another one, which may be among them."""
    return any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans)


def _instructions(lines: list[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if line and not line.startswith(".") and line[-1] != ":")


def _macs(line: str) -> int:
    if not re.match(rf"(?:{{\w+}}\s+)?(?:{KINDS['product']})", line):
        return 0
    return TILE_MACS if "%tmm" in line else 64 if "%zmm" in line else 32 if "%ymm" in line else 16


def counts(loop: Loop) -> Counter[str]:
    """Instructions of one turn by kind; loads, stores and uses of the stack count beside that."""
    found: Counter[str] = Counter()
    for line in loop.lines:
        name = re.sub(r"^{\w+}\s+", "", line)
        found[next((kind for kind, of in KINDS.items() if re.match(of, name)), "scalar")] += 1
        if "(" in line and not name.startswith(("lea", "prefetch")):
            stored = name.endswith(")") and "mov" in name.split()[0]
            found["store" if stored else "load"] += 1
            found["stack"] += "(%rsp" in line or "(%rbp" in line
    return found


def cycles(loop: Loop, cpu: str, program: str) -> float | None:
    """llvm-mca's cycles for one turn; None where it does not say, or cannot know."""
    if any("%tmm" in line for line in loop.lines):
        return None
    straight = [line for line in loop.lines if not JUMP.match(line)]
    command = [program, "-mtriple=x86_64", f"-mcpu={cpu}", f"-iterations={TURNS}", "-"]
    done = subprocess.run(
        command, input="\n".join(straight), capture_output=True, text=True, check=False
    )
    total = re.search(r"^Total Cycles: +(\d+)", done.stdout, re.M)
    return int(total[1]) / TURNS if total and not done.returncode else None


@dataclass(frozen=True, slots=True)
class Cost:
    """A loop's figures; instructions and cycles are for PER multiply-accumulates."""

    isa: str
    activation: str
    loop: str
    instructions_a_turn: int
    macs_a_turn: int
    instructions: dict[str, float]
    cycles: dict[str, float | None]


def cost(isa: str, activation: str, loop: Loop, cpus: list[str], program: str | None) -> Cost:
    """All that is known of a loop without running it."""
    share = PER / loop.macs
    taken = {
        cpu: cycles(loop, cpu, program) if program and isa in CPUS[cpu] else None for cpu in cpus
    }
    return Cost(
        isa,
        activation,
        loop.label,
        len(loop.lines),
        loop.macs,
        {kind: round(share * count, 2) for kind, count in counts(loop).items()},
        {cpu: turn and round(share * turn, 2) for cpu, turn in taken.items()},
    )


COLUMNS = (*KINDS, "scalar", "load", "store", "stack")


def table(costs: list[Cost], cpus: list[str]) -> list[str]:
    """The loops of one kernel under a heading."""
    head = ["loop", "insns", "MACs", *COLUMNS, *cpus]
    rows = [
        [cost.loop, str(cost.instructions_a_turn), str(cost.macs_a_turn)]
        + [_shown(cost.instructions.get(name)) for name in COLUMNS]
        + [_shown(cost.cycles[cpu]) for cpu in cpus]
        for cost in costs
    ]
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (head, *rows)
    ]


def _shown(value: float | None) -> str:
    return "" if not value else f"{value:.1f}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add, words = parser.add_argument, lambda text: text.split(",")
    add("--isa", type=words, default=["avx2", "avxvnni", "avx512bw", "avx512vnni", "amx"])
    add("--activation", type=words, default=["int8", "int16"])
    add("--cpu", nargs="+", choices=CPUS, default=list(CPUS))
    add("--mca", default="llvm-mca", help="the program, for instance llvm-mca-22")
    return parser.parse_args()


def main() -> None:
    """Print a table for each kernel, and the JSON line."""
    options = arguments()
    program = shutil.which(options.mca)
    if program is None:
        print(f"{options.mca} is not installed (package llvm): no cycles")
    found = []
    for isa in options.isa:
        for activation in options.activation:
            text = assembly(isa, activation)
            kernel = [cost(isa, activation, loop, options.cpu, program) for loop in loops(text)]
            print(f"\n{isa} {activation}: for {PER} int8 multiply-accumulates")
            print("\n".join(table(kernel, options.cpu)))
            found += kernel
    lines = [asdict(cost) for cost in found]
    print(json.dumps({"bench": "inner_loop", "environment": environment(), "loops": lines}))


if __name__ == "__main__":
    main()
