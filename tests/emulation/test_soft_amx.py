"""The tile instructions done in software: against numpy, and refused where the manual says so."""

import numpy as np
import pytest

from tests.emulation.assembler import assemble
from tests.emulation.machine import Buffer
from tests.emulation.needs import needs_emulator
from tests.emulation.runner import Call, Job, run
from tests.emulation.tile_decode import TileInstruction, decode, decode_before

pytestmark = [needs_emulator, pytest.mark.emulated]

INT8 = {"tdpbssd": "ii", "tdpbsud": "iu", "tdpbusd": "ui", "tdpbuud": "uu"}
SHAPES = [(16, 16, 16), (1, 1, 1), (3, 16, 8), (16, 5, 7), (9, 2, 16)]  # rows, columns, inputs / 4
PRODUCT = """
{name}:
  ldtilecfg [rdi]
  mov eax, 64
  tileloadd tmm3, [rcx + rax]
  tileloadd tmm0, [rsi + 1*rax]
  tileloaddt1 tmm6, [rdx + 1*rax]
  {name} tmm3, tmm0, tmm6
  tilestored [r8 + 1*rax], tmm3
  sttilecfg [r9]
  tilerelease
  ret
"""


def config(rows, row_bytes):
    """Palette 1 with tile -> rows and tile -> bytes a row."""
    data = np.zeros(64, np.uint8)
    data[0] = 1
    for tile, n in rows.items():
        data[48 + tile] = n
        data[16:48].view(np.uint16)[tile] = row_bytes[tile]
    return data


def product_call(name, shape, a, b, c):
    m, n, k = shape
    settings = config({3: m, 0: m, 6: k}, {3: 4 * n, 0: 4 * k, 6: 4 * n})
    out, kept = np.zeros((16, 64), np.uint8), np.zeros(64, np.uint8)
    buffers = [Buffer(x) for x in (settings, a, b, c)] + [Buffer(out, True), Buffer(kept, True)]
    return Call(tuple(buffers), symbol=name)


def integers(name, shape, a, b, c):
    """c + a x b in exact integers, modulo 2^32."""
    m, n, k = shape
    left = a[:m, : 4 * k].astype(np.uint8).view(f"{INT8[name][0]}1").astype(object)
    right = b[:k, : 4 * n].copy().view(f"{INT8[name][1]}1").reshape(k, n, 4).astype(object)
    out = np.zeros((16, 16), np.uint32)
    start = c.view(np.int32)
    for i in range(m):
        for j in range(n):
            total = sum(left[i, 4 * p + q] * right[p, j, q] for p in range(k) for q in range(4))
            out[i, j] = (int(start[i, j]) + int(total)) % 2**32
    return out


@pytest.mark.parametrize("fill", ["random", "least", "largest"])
def test_integer_products_are_exact(fill):
    rng = np.random.default_rng(1)
    byte = {"least": 0x80, "largest": 0x7F}.get(fill)
    jobs = []
    for name in INT8:
        for shape in SHAPES:
            a, b, c = (rng.integers(0, 256, (16, 64), dtype=np.uint8) for _ in range(3))
            if byte is not None:
                a[:], b[:] = byte, byte
            jobs.append((name, shape, a, b, c))
    code = assemble("".join(PRODUCT.format(name=name) for name in INT8))
    calls = tuple(product_call(*job) for job in jobs)
    for job, outcome in zip(jobs, run(Job("sapphire_rapids", (code,), calls, True)), strict=True):
        out, kept = outcome.arrays
        assert outcome.offences == ()
        assert outcome.trapped[job[0]] == 1
        assert np.array_equal(out.view(np.uint32), integers(*job)), job[:2]
        assert np.array_equal(kept, calls[jobs.index(job)].arguments[0].array)


def test_bf16_products_are_exact_where_sums_are():
    """Small whole numbers: every order of summation gives the same."""
    rng = np.random.default_rng(2)
    m, n, k = 16, 16, 16
    a, b = rng.integers(-9, 10, (m, 2 * k)), rng.integers(-9, 10, (2 * k, n))
    packed = b.reshape(k, 2, n).transpose(0, 2, 1)  # [k, n, 2]
    bits = [(x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in (a, packed)]
    left, right = (np.ascontiguousarray(x).reshape(16, 32).view(np.uint8) for x in bits)
    c = np.full((16, 16), 3, np.float32).view(np.uint8).reshape(16, 64)
    call = product_call("tdpbf16ps", (m, n, k), left, right, c)
    code = assemble(PRODUCT.format(name="tdpbf16ps"))
    (outcome,) = run(Job("sapphire_rapids", (code,), (call,), True))
    assert outcome.offences == ()
    assert np.array_equal(outcome.arrays[0].view(np.float32), (a @ b + 3).astype(np.float32))


LEGAL = config({0: 16, 1: 16, 2: 16}, {0: 64, 1: 64, 2: 64})


def changed(at, value):
    data = LEGAL.copy()
    data[at] = value
    return data


REFUSED = {
    "palette 2": (changed(0, 2), "nop"),
    "start row": (changed(1, 1), "nop"),
    "17 rows": (changed(48, 17), "nop"),
    "65 bytes a row": (changed(16, 65), "nop"),
    "rows without bytes": (changed(51, 1), "nop"),
    "no configuration": (changed(0, 0), "tilezero tmm0"),
    "a tile without rows": (LEGAL, "tilezero tmm3"),
    "one tile twice": (LEGAL, ".byte 0xC4, 0xE2, 0x73, 0x5E, 0xC1"),  # tdpbssd tmm0, tmm1, tmm1
    "rows that do not fit": (changed(49, 15), "tdpbssd tmm0, tmm1, tmm2"),
}


def test_illegal_use_is_refused():
    text = "".join(
        f"case{i}:\nldtilecfg [rdi]\n{line}\ntilerelease\nret\n"
        for i, (_, line) in enumerate(REFUSED.values())
    )
    calls = tuple(
        Call((Buffer(data),), symbol=f"case{i}") for i, (data, _) in enumerate(REFUSED.values())
    )
    for name, outcome in zip(
        REFUSED, run(Job("sapphire_rapids", (assemble(text),), calls, True)), strict=True
    ):
        assert "#UD" in "".join(outcome.offences), name


ACCESSES = """
load:
  ldtilecfg [rdi]
  mov eax, 64
  tileloadd tmm0, [rsi + rax]
  tilerelease
  ret
store:
  ldtilecfg [rdi]
  mov eax, 64
  tilestored [rsi + rax], tmm0
  tilerelease
  ret
keep:
  ldtilecfg [rdi]
  ret
"""


ACCESSED = [  # function, rows of memory behind its pointer, may be written, offence
    ("load", 16, False, None),
    ("load", 15, False, "tile read of"),
    ("store", 16, True, None),
    ("store", 15, True, "tile write to"),
    ("store", 16, False, "tile write to"),
    ("keep", 1, False, "returned without tilerelease"),
]


def test_tile_accesses_are_checked():
    calls = tuple(
        Call((Buffer(LEGAL), Buffer(np.zeros(64 * rows, np.uint8), writable)), symbol=symbol)
        for symbol, rows, writable, _ in ACCESSED
    )
    found = run(Job("sapphire_rapids", (assemble(ACCESSES),), calls, True))
    for (*what, text), outcome in zip(ACCESSED, found, strict=True):
        assert len(outcome.offences) == (text is not None), (what, outcome.offences)
        assert text is None or text in outcome.offences[0], what


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("tdpbssd tmm1, tmm2, tmm3", TileInstruction("tdpbssd", 1, 2, 3)),
        ("tileloadd tmm5, [r12 + 4*r9 - 8]", TileInstruction("tileloadd", 5, 0, 0, 12, 9, 2, -8)),
        ("tilestored [rbp + rax + 512], tmm7",
         TileInstruction("tilestored", 7, 0, 0, 5, 0, 0, 512)),
        ("ldtilecfg [rip + 64]", TileInstruction("ldtilecfg", 0, 0, 0, -1, None, 0, 64)),
        ("ldtilecfg [rsp - 64]", TileInstruction("ldtilecfg", 0, 0, 0, 4, None, 0, -64)),
        ("sttilecfg [r13]", TileInstruction("sttilecfg", 0, 0, 0, 13, None, 0, 0)),
        ("tilezero tmm4", TileInstruction("tilezero", 4, 0, 0)),
        ("vpaddd ymm0, ymm1, ymm2", None),
    ],
)  # fmt: skip
def test_decoding(text, want):
    from tests.emulation.elf import read

    code = read(assemble(f"f:\n{text}")).code[0].data
    assert decode(code) == want
    assert decode_before(b"\x90" * 10 + code) == want
