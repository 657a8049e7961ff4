"""The launches of a decode step around its experts at a model's sizes, for compilers and tables."""

from collections.abc import Iterator
from typing import Any

from hybrid.config import TextConfig
from hybrid.gpu_attention.codes import GROUP
from hybrid.gpu_attention.kernels import gemv, launching, mla, router
from hybrid.gpu_attention.kv_cache import PAGE
from hybrid.triton_build import Launch

CONTEXT = 32_768  # positions
PROGRAMS = 128  # of attention: as many as an RTX 4090 has multiprocessors


def launches(text: TextConfig, tokens: int = 1) -> list[Launch]:
    """Those of one layer, the dense layer and the head, in both types of weights."""
    return [
        *_attention(text, tokens),
        *_router(text, tokens),
        *(each for coded in (False, True) for each in _products(text, tokens, coded=coded)),
    ]


def _products(text: TextConfig, tokens: int, *, coded: bool) -> Iterator[Launch]:
    heads, hidden, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    nope, value, width = text.qk_nope_head_dim, text.v_head_dim, rank + text.qk_rope_head_dim
    shared = text.n_shared_experts * text.moe_intermediate_size
    shapes = (  # name, heads, outputs, inputs, with the norm before it
        ("q_kv_a", 1, text.q_lora_rank + width, hidden, True),
        ("q_b", 1, heads * (nope + text.qk_rope_head_dim), text.q_lora_rank, True),
        ("up_k", heads, rank, nope, False),
        ("up_v", heads, value, rank, False),
        ("o", 1, hidden, heads * value, False),
        ("dense gate_up", 1, 2 * text.intermediate_size, hidden, True),
        ("dense down", 1, hidden, text.intermediate_size, False),
        ("shared gate_up", 1, 2 * shared, hidden, False),
        ("shared down", 1, hidden, shared, False),
        ("head", 1, text.vocab_size, hidden, True),
    )
    for name, count, outputs, inputs, norm in shapes:
        if outputs and inputs:
            label = f"{name} {'int8' if coded else 'bf16'}"
            yield _product(label, tokens, (count, outputs, inputs), coded=coded, norm=norm)


def _product(
    name: str, tokens: int, shape: tuple[int, int, int], *, coded: bool, norm: bool
) -> Launch:
    heads, outputs, inputs = shape
    tiles = launching.linear_tiles(outputs, inputs, coded=coded, norm=norm)
    weights = heads * outputs * inputs
    stored = weights + 2 * heads * outputs * -(-inputs // GROUP) if coded else 2 * weights
    numbers = {"outputs": outputs, "inputs": inputs, "x_token": inputs, "x_head": inputs}
    return Launch(
        name=name,
        kernel=gemv.gemv,
        signature={
            "x": "*bf16:16",
            "weight": "*i8:16" if coded else "*bf16:16",
            "scales": "*bf16:16",
            "norm": "*bf16:16",
            "out": "*bf16:16",
            "tokens": "i32",
            **_integers(numbers),
            "eps": "fp32",
        },
        constexprs=tiles,
        grid=(-(-outputs // tiles["OUTPUTS"]), heads),
        bytes=stored + 2 * tokens * heads * (inputs + outputs),
        operations=2 * tokens * weights,
        unit="bf16",
        num_warps=launching.WARPS,
        num_stages=tiles["STAGES"],
    )


def _attention(text: TextConfig, tokens: int) -> Iterator[Launch]:
    rank, width = text.kv_lora_rank, text.kv_lora_rank + text.qk_rope_head_dim
    pairs = tokens * text.num_attention_heads
    splits = launching.attend_splits(pairs, CONTEXT // PAGE, PROGRAMS)
    partial = 4 * splits * pairs * (rank + 2)
    sizes = {"heads": text.num_attention_heads, "width": width, "rank": rank, "splits": splits}
    yield Launch(
        name=f"attend_part {CONTEXT // 1024}K",
        kernel=mla.attend_part,
        signature={
            **dict.fromkeys(("query", "pages"), "*bf16:16"),
            **dict.fromkeys(("table", "start"), "*i32:16"),
            **dict.fromkeys(("parts", "states"), "*fp32:16"),
            "scale": "fp32",
            "tokens": "i32",
            **_integers(sizes),
        },
        constexprs=launching.attend_tiles(rank, width, PAGE),
        grid=(-(-pairs // launching.ATTEND_ROWS), splits),
        bytes=2 * CONTEXT * width + 2 * pairs * width + partial,
        operations=2 * pairs * CONTEXT * (width + rank),
        unit="bf16",
        num_warps=launching.ATTEND_WARPS,
        num_stages=launching.ATTEND_STAGES,
    )
    yield Launch(
        name="merge_parts",
        kernel=mla.merge_parts,
        signature={
            **dict.fromkeys(("parts", "states"), "*fp32:16"),
            "start": "*i32:16",
            "out": "*bf16:16",
            "tokens": "i32",
            **_integers({name: size for name, size in sizes.items() if name != "width"}),
        },
        constexprs={
            "PAGE": PAGE,
            "SPLITS": launching.padded(splits),
            "COLUMNS": launching.MERGE_COLUMNS,
        },
        grid=(pairs, -(-rank // launching.MERGE_COLUMNS)),
        bytes=partial + 2 * pairs * rank,
        operations=2 * splits * pairs * rank,
        num_warps=launching.WARPS,
    )


def _router(text: TextConfig, tokens: int) -> Iterator[Launch]:
    experts, inputs, k = text.n_routed_experts, text.hidden_size, text.num_experts_per_tok
    yield Launch(
        name="router logits",
        kernel=router.logits,
        signature={
            "hidden": "*bf16:16",
            **dict.fromkeys(("gate", "out"), "*fp32:16"),
            **_integers({"experts": experts, "inputs": inputs, "hidden_token": inputs}),
        },
        constexprs={
            "ROWS": launching.LOGIT_ROWS,
            "STEP": launching.LOGIT_STEP,
            "STAGES": launching.LOGIT_STAGES,
        },
        grid=(-(-experts // launching.LOGIT_ROWS), tokens),
        bytes=4 * experts * inputs + 2 * tokens * inputs + 4 * tokens * experts,
        operations=2 * tokens * experts * inputs,
        num_warps=launching.WARPS,
        num_stages=launching.LOGIT_STAGES,
    )
    yield Launch(
        name="router select",
        kernel=router.select,
        signature={
            **dict.fromkeys(("scores", "bias", "weights"), "*fp32:16"),
            "ids": "*i32:16",
            **_integers({"experts": experts}),
            "scaling": "fp32",
        },
        constexprs={
            "K": k,
            "NORMALISED": text.norm_topk_prob,
            "EXPERTS": launching.padded(experts),
            "SLOTS": launching.padded(k),
        },
        grid=(tokens,),
        bytes=4 * experts * (tokens + 1) + 8 * tokens * k,
        operations=tokens * experts * (4 + 2 * k),
        num_warps=launching.WARPS,
    )


def _integers(values: dict[str, int]) -> dict[str, Any]:
    """Types of numbers; Triton looks for multiples of 16 when it launches."""
    return {name: "i32:16" if value % 16 == 0 else "i32" for name, value in values.items()}
