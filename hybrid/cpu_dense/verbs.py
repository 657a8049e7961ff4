"""The verbs of the backbone as compiled code: each is one call, a row of phases over the pool.

    attend        norm -> q_a | kv_a -> latents, cache rows -> q_b -> attention -> o_proj + x
    feed_forward  [norm ->] gate | up -> silu(gate) * up -> down [+ x]
    route         norm -> router logits -> k largest
    head          norm -> lm_head

A verb's record nests the records of its phases. `layers.py` fills them; here only what differs from
call to call is set.
"""
# mypy: allow-untyped-defs
# ruff: noqa: ANN001, ANN202 (compiled code: numba infers the types)

from functools import cache
from typing import Any

from numba import carray, types

from hybrid.cpu_dense.attention import ATTENTION, attention_at, run_attention
from hybrid.cpu_dense.feed_forward import SWIGLU, run_swiglu, swiglu_at
from hybrid.cpu_dense.latent import LATENT, latent_at, run_latent
from hybrid.cpu_dense.linear import LINEAR, linear_at, run_linear
from hybrid.cpu_dense.norm import NORM, norm_at, run_norm
from hybrid.cpu_dense.records import entry, offset, record
from hybrid.cpu_dense.router import SELECT, run_select, select_at
from hybrid.cpu_experts.compiled import inlined
from hybrid.cpu_experts.native import load_f32, store_f32
from hybrid.cpu_experts.simd import load_f32x8, store_f32x8

ATTEND, _ = record(
    "",
    norm=NORM,
    q_kv_a=LINEAR,
    latent=LATENT,
    q_b=LINEAR,
    attention=ATTENTION,
    o=LINEAR,
)
FEED_FORWARD, _ = record("", norm=NORM, gate_up=LINEAR, swiglu=SWIGLU, down=LINEAR)
ROUTE, _ = record("", norm=NORM, gate=LINEAR, select=SELECT)
HEAD, _ = record("", norm=NORM, head=LINEAR)

A_NORM, A_QKV, A_LATENT, A_QB, A_ATTENTION, A_O = (offset(ATTEND, n) for n in ATTEND.names or ())
F_NORM, F_GATE_UP, F_SWIGLU, F_DOWN = (offset(FEED_FORWARD, n) for n in FEED_FORWARD.names or ())
R_NORM, R_GATE, R_SELECT = (offset(ROUTE, n) for n in ROUTE.names or ())
H_NORM, H_HEAD = (offset(HEAD, n) for n in HEAD.names or ())

_ROWS = types.Array(types.float32, 2, "C", readonly=True)
_OUT = types.Array(types.float32, 2, "C")
_IDS = types.Array(types.int32, 2, "C")
_WORD = types.intp


@cache
def attend() -> Any:
    """attend(record, x, out, start, pool state): out = x + MLA(norm x) (spec §3.2)."""
    return entry("attend", types.void(_WORD, _ROWS, _OUT, _WORD, _WORD), _attend)


@cache
def dense() -> Any:
    """dense(record, x, out, pool state): out = x + SwiGLU(norm x)."""
    return entry("dense", types.void(_WORD, _ROWS, _OUT, _WORD), _dense)


@cache
def shared() -> Any:
    """shared(record, hidden, out, pool state): out = SwiGLU(hidden)."""
    return entry("shared", types.void(_WORD, _ROWS, _OUT, _WORD), _shared)


@cache
def route() -> Any:
    """route(record, x, hidden, ids, weights, pool state): fills the last three arrays."""
    return entry("route", types.void(_WORD, _ROWS, _OUT, _IDS, _OUT, _WORD), _route)


@cache
def head() -> Any:
    """head(record, x, logits, pool state): logits = lm_head(norm x)."""
    return entry("head", types.void(_WORD, _ROWS, _OUT, _WORD), _head)


@inlined
def _normalise(state, at, x, tokens):
    norm = carray(norm_at(at), 1)[0]
    norm.x, norm.tokens = x, tokens
    run_norm(state, at)


@inlined
def _multiply(state, at, tokens):
    carray(linear_at(at), 1)[0].tokens = tokens
    run_linear(state, at)


def _attend(at, x, out, start, state):
    tokens = x.shape[0]
    _normalise(state, at + A_NORM, x.ctypes.data, tokens)
    _multiply(state, at + A_QKV, tokens)
    latent = carray(latent_at(at + A_LATENT), 1)[0]
    latent.start, latent.tokens = start, tokens
    run_latent(state, at + A_LATENT)
    _multiply(state, at + A_QB, tokens)
    attention = carray(attention_at(at + A_ATTENTION), 1)[0]
    attention.start, attention.tokens = start, tokens
    run_attention(state, at + A_ATTENTION)
    o = carray(linear_at(at + A_O), 1)[0]
    o.out, o.residual = out.ctypes.data, x.ctypes.data
    _multiply(state, at + A_O, tokens)


@inlined
def _copy_rows(source, source_bytes, target, target_bytes, width, tokens):
    for token in range(tokens):
        above, below = source + token * source_bytes, target + token * target_bytes
        for at in range(0, width // 8 * 32, 32):
            store_f32x8(below, at, load_f32x8(above, at))
        for index in range(width // 8 * 8, width):
            store_f32(below, index, load_f32(above, index))


@inlined
def _swiglu(state, at, out, residual, tokens):
    _multiply(state, at + F_GATE_UP, tokens)
    carray(swiglu_at(at + F_SWIGLU), 1)[0].tokens = tokens
    run_swiglu(state, at + F_SWIGLU)
    down = carray(linear_at(at + F_DOWN), 1)[0]
    down.out, down.residual = out, residual
    _multiply(state, at + F_DOWN, tokens)


def _dense(at, x, out, state):
    _normalise(state, at + F_NORM, x.ctypes.data, x.shape[0])
    _swiglu(state, at, out.ctypes.data, x.ctypes.data, x.shape[0])


def _shared(at, hidden, out, state):
    gate_up = carray(linear_at(at + F_GATE_UP), 1)[0]
    tokens, width = hidden.shape
    _copy_rows(hidden.ctypes.data, width * 4, gate_up.x, gate_up.x_bytes, width, tokens)
    _swiglu(state, at, out.ctypes.data, 0, tokens)


def _route(at, x, hidden, ids, weights, state):
    tokens, width = x.shape
    _normalise(state, at + R_NORM, x.ctypes.data, tokens)
    _multiply(state, at + R_GATE, tokens)
    gate = carray(linear_at(at + R_GATE), 1)[0]
    _copy_rows(gate.x, gate.x_bytes, hidden.ctypes.data, width * 4, width, tokens)
    select = carray(select_at(at + R_SELECT), 1)[0]
    select.ids, select.weights = ids.ctypes.data, weights.ctypes.data
    select.tokens = tokens
    run_select(state, at + R_SELECT)


def _head(at, x, logits, state):
    _normalise(state, at + H_NORM, x.ctypes.data, x.shape[0])
    carray(linear_at(at + H_HEAD), 1)[0].out = logits.ctypes.data
    _multiply(state, at + H_HEAD, x.shape[0])
