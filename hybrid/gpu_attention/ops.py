"""The operations of a decode step that torch has not, or not in one pass over the weights.

    linear      y = norm(x) W                               [tokens, in] -> [tokens, out]
    per_head    y[h] = x[h] W[h]                            [tokens, heads, in] -> [.., out]
    mla_decode  softmax(q rows) rows over the paged cache   [tokens, heads, width] -> [.., rank]
    route       k largest of sigmoid(x W) + bias            [tokens, hidden] -> ids and weights

Each is a torch custom operator `kimi_local::…` with three bodies: on the CPU the plain statement in
torch (plain.py); on CUDA a Triton kernel (kernels/), for products in bf16 of at most FEW tokens,
above that the plain statement; for tracing its shape alone. On CUDA none waits for the device:
lengths and positions are read there.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from hybrid.errors import KernelError
from hybrid.gpu_attention import plain
from hybrid.gpu_attention.codes import Int8Weight, Weight

FEW = 8  # tokens of a decode step: one pass over the weights serves them all
PROGRAMS = 1  # of attention, for each multiprocessor: its registers hold no second one


def linear(x: Tensor, weight: Weight) -> Tensor:
    """x [tokens, in] times a matrix [out, in]: [tokens, out] in x's type.

    int8 weights count as code * scale; more than FEW tokens meet them rounded to x's type.
    """
    result: Tensor = _linear(x, *_parts(weight), None, 0.0)
    return result


def norm_linear(x: Tensor, norm: Tensor, eps: float, weight: Weight) -> Tensor:
    """`linear` of RMSNorm(x), rounded where `layers.rms_norm` rounds (spec §3.1)."""
    result: Tensor = _linear(x, *_parts(weight), norm, eps)
    return result


def per_head(x: Tensor, weight: Weight) -> Tensor:
    """x [tokens, heads, in] times each head's matrix [heads, out, in]: [tokens, heads, out]."""
    result: Tensor = _per_head(x, *_parts(weight))
    return result


def mla_decode(
    query: Tensor, pages: Tensor, table: Tensor, start: Tensor, scale: float, rank: int
) -> Tensor:
    """Attention of a few consecutive tokens to the rows of the paged cache (kv_cache.py).

    query: [tokens, heads, width]; pages: [pages, PAGE, width], whose rows are the keys and, up to
    `rank`, the values; table: int32 [pages of the timeline]; start: int32 [1], the position of the
    first token, whose row is in the cache already. Token t sees positions 0…start + t. Returns the
    mixed rows [tokens, heads, rank]. Softmax in fp32.
    """
    result: Tensor = _mla_decode(query, pages, table, start, scale, rank)
    return result


def route(
    hidden: Tensor, gate: Tensor, bias: Tensor, k: int, norm_topk_prob: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """Ids int32 and weights fp32 [tokens, k] for hidden [tokens, hidden_size] (spec §3.4).

    gate [n_routed_experts, hidden_size]; bias fp32 [n_routed_experts]. All of it is fp32: a bf16
    router picks other experts. In descending order of score + bias, equal ones by the lower index;
    a NaN is below everything.
    """
    result: tuple[Tensor, Tensor] = _route(hidden, gate, bias, k, norm_topk_prob, scaling)
    return result


_linear = torch.library.custom_op(
    "kimi_local::linear", plain.linear, mutates_args=(), device_types="cpu"
)
_per_head = torch.library.custom_op(
    "kimi_local::per_head", plain.per_head, mutates_args=(), device_types="cpu"
)
_mla_decode = torch.library.custom_op(
    "kimi_local::mla_decode", plain.mla_decode, mutates_args=(), device_types="cpu"
)
_route = torch.library.custom_op(
    "kimi_local::route", plain.route, mutates_args=(), device_types="cpu"
)


@_linear.register_kernel("cuda")
def _linear_cuda(
    x: Tensor, weight: Tensor, scales: Tensor | None, norm: Tensor | None, eps: float
) -> Tensor:
    if not _few(x):
        return plain.linear(x, weight, scales, norm, eps)
    with torch.cuda.device_of(x):
        result: Tensor = _launching().linear(x, weight, scales, norm, eps)
    return result


@_per_head.register_kernel("cuda")
def _per_head_cuda(x: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
    if not _few(x):
        return plain.per_head(x, weight, scales)
    with torch.cuda.device_of(x):
        result: Tensor = _launching().per_head(x, weight, scales)
    return result


@_mla_decode.register_kernel("cuda")
def _mla_decode_cuda(
    query: Tensor, pages: Tensor, table: Tensor, start: Tensor, scale: float, rank: int
) -> Tensor:
    if query.dtype != torch.bfloat16:
        raise KernelError(f"attention on CUDA is in bfloat16, not {query.dtype}; load in bfloat16")
    programs = PROGRAMS * _multiprocessors(query.device)
    with torch.cuda.device_of(query):
        result: Tensor = _launching().mla_decode(query, pages, table, start, scale, rank, programs)
    return result


@_route.register_kernel("cuda")
def _route_cuda(
    hidden: Tensor, gate: Tensor, bias: Tensor, k: int, norm_topk_prob: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    if hidden.shape[0] > FEW:
        return plain.route(hidden, gate, bias, k, norm_topk_prob, scaling)
    with torch.cuda.device_of(hidden):
        result: tuple[Tensor, Tensor] = _launching().route(
            hidden, gate, bias, k, norm_topk_prob, scaling
        )
    return result


@_linear.register_fake
def _linear_shape(
    x: Tensor, weight: Tensor, scales: Tensor | None, norm: Tensor | None, eps: float
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@_per_head.register_fake
def _per_head_shape(x: Tensor, weight: Tensor, scales: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], weight.shape[1])


@_mla_decode.register_fake
def _mla_decode_shape(
    query: Tensor, pages: Tensor, table: Tensor, start: Tensor, scale: float, rank: int
) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1], rank)


@_route.register_fake
def _route_shape(
    hidden: Tensor, gate: Tensor, bias: Tensor, k: int, norm_topk_prob: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    shape = (hidden.shape[0], k)
    return hidden.new_empty(shape, dtype=torch.int32), hidden.new_empty(shape, dtype=torch.float32)


def _parts(weight: Weight) -> tuple[Tensor, Tensor | None]:
    return (weight.codes, weight.scales) if isinstance(weight, Int8Weight) else (weight, None)


def _few(x: Tensor) -> bool:
    return x.shape[0] <= FEW and x.dtype == torch.bfloat16


def _launching() -> ModuleType:
    """Imported on CUDA only: elsewhere there may be no Triton."""
    from hybrid.gpu_attention.kernels import launching

    return launching


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
