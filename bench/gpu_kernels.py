"""What each GPU kernel would take of a card at K2.5's size, by its machine code; no GPU is needed.

    python bench/gpu_kernels.py [--chip "RTX 4090"] [--only TEXT] [--json FILE]

Each launch is compiled for the first of the chips and its registers, stack (where spilled registers
lie) and shared memory are read from the cubin. Bytes and operations are those of the launch, each
once. "us" is the roofline: the slower of memory and arithmetic at the rates of the data sheet,
which no kernel reaches. Nothing in this table was measured on hardware.

Prints the table, then JSON lines: one about the bench, one for each launch.
"""

import argparse
import json
from pathlib import Path

from environment import environment

from hybrid.config import TextConfig
from hybrid.gpu_attention.kernels import launches as attention
from hybrid.gpu_experts import launches as experts
from hybrid.placement.builtin import builtin_config
from hybrid.triton_build import CHIPS, Chip, Launch, build_launch

SHOWN = "RTX 4090", "RTX 5090", "RTX PRO 6000", "H100 SXM"
PACKAGES = {"experts": experts.launches, "attention": attention.launches}


def chosen(text: TextConfig, only: str) -> dict[str, Launch]:
    """Launches of all packages whose "package: name" contains `only`."""
    every = {f"{p}: {each.name}": each for p, made in PACKAGES.items() for each in made(text)}
    return {name: each for name, each in every.items() if only in name}


def row(name: str, launch: Launch, chips: list[Chip]) -> dict[str, object]:
    """One launch, compiled for the first chip, timed on paper for each."""
    built = build_launch(launch, chips[0].capability)
    return {
        "launch": name,
        "grid": list(launch.grid),
        "warps": launch.num_warps,
        "registers": built.registers,
        "spills": built.spills,
        "shared_bytes": built.shared_bytes,
        "bytes": launch.bytes,
        "operations": {launch.unit: launch.operations, **launch.also},
        "paper_us": {chip.name: round(launch.seconds(chip) * 1e6, 2) for chip in chips},
    }


def line(found: dict, chips: list[Chip]) -> str:
    """One row of the table."""
    work = ", ".join(f"{n / 1e6:.4g}M {unit}" for unit, n in found["operations"].items())
    times = "".join(f"{found['paper_us'][chip.name]:>14,.1f}" for chip in chips)
    return (
        f"{found['launch']:44}{found['registers']:>5}{found['spills']:>7}"
        f"{found['shared_bytes']:>8}{found['bytes'] / 1e6:>11,.2f}{times}   {work}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [chip.name for chip in CHIPS]
    parser.add_argument("--chip", action="append", choices=names, help="repeatable")
    parser.add_argument("--only", default="", help="launches whose name contains this")
    parser.add_argument("--json", type=Path, help="where the JSON lines go instead")
    return parser.parse_args()


def main() -> None:
    """Compile, print the table, write the JSON lines."""
    options = arguments()
    by_name = {chip.name: chip for chip in CHIPS}
    chips = [by_name[name] for name in options.chip or SHOWN]
    heads = "".join(f"{chip.name:>14}" for chip in chips)
    print(f"compiled for sm_{chips[0].capability}; us on paper: data sheets, nothing measured")
    print(f"{'launch':44}{'regs':>5}{'spills':>7}{'shared':>8}{'MB':>11}{heads}   operations")
    found = []
    for name, launch in chosen(builtin_config().text, options.only).items():
        found.append(row(name, launch, chips))
        print(line(found[-1], chips), flush=True)
    head = {"bench": "gpu_kernels", "rates": "data sheets", "environment": environment()}
    lines = "\n".join(json.dumps(each) for each in [head, *found])
    if options.json:
        options.json.write_text(lines + "\n", "utf-8")
    else:
        print(lines)


if __name__ == "__main__":
    main()
