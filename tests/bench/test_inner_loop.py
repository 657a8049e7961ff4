"""Loops are found in assembly text, and what they execute is counted."""

import shutil

import inner_loop
import pytest

ASSEMBLY = """
rows16:
	vpmaddubsw	%ymm1, %ymm2, %ymm3    # before any loop
.LBB0_1:                                # outer
	xorl	%eax, %eax
.LBB0_2:                                # =>  inner
	vmovdqu	32(%rdi,%rax), %ymm0
	vpand	%ymm0, %ymm1, %ymm0
	vpmaddubsw	(%rsi), %ymm0, %ymm2
	{vex}	vpdpbusd	%ymm0, %ymm0, %ymm3
	vmovups	%ymm3, 64(%rsp)
	vaddps	64(%rsp), %ymm4, %ymm4
	leaq	4(%rdi), %rcx
	prefetcht0	2048(%rdi)
	cmpq	$64, %rax
	jne	.LBB0_2
	addq	$1, %rbx
	jl	.LBB0_1
.LBB0_3:
	incq	%rax
	jl	.LBB0_3
.LBB0_4:
	tdpbssd	%tmm1, %tmm2, %tmm0
.LBB0_5:
	incq	%rcx
	jl	.LBB0_5
	jmp	.LBB0_4
	.section	.rodata
"""


@pytest.fixture
def loops():
    return inner_loop.loops(ASSEMBLY)


def test_the_smallest_loops_that_multiply_are_found(loops):
    assert [loop.label for loop in loops] == [".LBB0_2", ".LBB0_4+"]
    assert [loop.macs for loop in loops] == [64, 16 * 16 * 64]
    assert len(loops[0].lines) == 9


def test_instructions_are_counted_by_kind(loops):
    assert inner_loop.counts(loops[0]) == {
        "product": 2, "nibble": 1, "move": 2, "float": 1, "scalar": 2, "prefetch": 1,
        "load": 3, "store": 1, "stack": 2,
    }  # fmt: skip


def test_figures_are_for_256_products(loops):
    cost = inner_loop.cost("avx2", "int8", loops[0], ["haswell"], program=None)
    assert cost.instructions["product"] == 8
    assert cost.instructions["stack"] == 8
    assert cost.cycles == {"haswell": None}
    heading, line = inner_loop.table([cost], ["haswell"])
    assert heading.split()[:3] == ["loop", "insns", "MACs"]
    assert len(line) == len(heading)


needs_mca = pytest.mark.skipif(not shutil.which("llvm-mca"), reason="llvm-mca is not installed")


@needs_mca
def test_cycles_grow_with_the_work():
    one = inner_loop.Loop("a", ("vpmaddubsw %ymm0, %ymm1, %ymm2", "vpaddw %ymm2, %ymm3, %ymm3"))
    four = inner_loop.Loop("b", one.lines * 4)
    few, many = (inner_loop.cycles(loop, "haswell", "llvm-mca") for loop in (one, four))
    assert 0 < few < many


@needs_mca
def test_what_a_cpu_lacks_has_no_cycles():
    wide = inner_loop.Loop("a", ("vpdpbusd %zmm0, %zmm1, %zmm2",))
    cost = inner_loop.cost("avx512vnni", "int8", wide, list(inner_loop.CPUS), "llvm-mca")
    assert {cpu for cpu, turn in cost.cycles.items() if turn} == {
        "icelake-server",
        "sapphirerapids",
    }


def test_tiles_have_no_cycles(loops):
    assert inner_loop.cycles(loops[1], "sapphirerapids", "llvm-mca") is None
