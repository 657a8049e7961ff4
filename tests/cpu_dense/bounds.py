"""How far float32 kernels may be from the float64 reference: probabilistic running error bounds.

A `Near` is an exact value and the scale of the computed one's distance from it. Rounding errors are
taken as independent with mean zero, so they add in squares, and a distance of LAMBDA scales has
a probability below 2 n exp(-LAMBDA^2 / 2), 1e-10 for the sizes here (Higham & Mary, "A New
Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019). Worst-case
bounds would grow tenfold with each matrix and miss every fault after the third. u = 2^-24.

    dot product of n fused multiply-adds        sqrt(n) u sum |w| |x|
    an error in its input                       sqrt(sum w^2 e^2)
    an elementary operation                     u |result|
    exp                                         4 u, see `numerics.exp`
    rounding to bf16, always within it          2^-8 |value|

Seen over 5 shapes and 6 seeds, in units of the bound: kernels at most 0.06 (cache rows 0.98: the
rounding to bf16 is a bound already), the mildest planted fault 12.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.reference.backbone import Reference, sigmoid, softmax

F64 = NDArray[np.float64]
U = 2.0**-24
EXP = 4 * U
LAMBDA = 8.0
BF16 = 2.0**-8 / LAMBDA  # a bound already, not a scale


@dataclass(frozen=True)
class Near:
    value: F64
    error: F64  # same shape

    @classmethod
    def exact(cls, value: NDArray) -> "Near":
        value = np.asarray(value, np.float64)
        return cls(value, np.zeros_like(value))


class Bounds:
    """The reference's verbs on `Near`; values are the reference's own."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.text = reference, reference.text

    def weight(self, name: str) -> F64:
        return self.reference.tensors[f"{name}.weight"]

    def linear(self, x: Near, name: str) -> Near:
        return product(x, self.weight(name))

    def rms_norm(self, x: Near, name: str, eps: float) -> Near:
        """The sum of squares runs in 32 lanes, then 35 additions at most."""
        n = x.value.shape[-1]
        mean = np.mean(x.value**2, axis=-1, keepdims=True) + eps
        squares = np.sum((x.value * x.error) ** 2, axis=-1, keepdims=True)
        from_input = 2 * np.sqrt(squares) / n / mean
        inverse_error = 0.5 * (from_input + np.sqrt(n / 32 + 40) * U) + 3 * U
        weight = np.abs(self.weight(name)) / np.sqrt(mean)
        error = weight * (np.abs(x.value) * (inverse_error + 2 * U) + x.error)
        return Near(self.reference.rms_norm(x.value, name, eps), error)

    def input_norm(self, layer: int, x: Near) -> Near:
        name = f"model.layers.{layer}.input_layernorm"
        return self.rms_norm(x, name, self.text.rms_norm_eps)

    def post_norm(self, layer: int, x: Near) -> Near:
        name = f"model.layers.{layer}.post_attention_layernorm"
        return self.rms_norm(x, name, self.text.rms_norm_eps)

    def logits(self, x: Near) -> Near:
        return self.linear(self.rms_norm(x, "model.norm", self.text.rms_norm_eps), "lm_head")

    def rotate(self, x: Near, start: int) -> Near:
        """cos and sin are within 4 u (2 ulp of 1); two products and a sum each."""
        value = np.stack([self.reference.rotate(row, start + t) for t, row in enumerate(x.value)])
        pairs = np.abs(x.value).reshape(*x.value.shape[:-1], -1, 2).sum(-1)
        errors = x.error.reshape(*x.error.shape[:-1], -1, 2).sum(-1)
        return Near(value, np.repeat(errors + (4 + 3) * U * pairs, 2, axis=-1))

    def latents(self, layer: int, x: Near, start: int) -> Near:
        """What the cache stores, bf16 rounding included."""
        attn = f"model.layers.{layer}.self_attn"
        kv_a = self.linear(self.input_norm(layer, x), f"{attn}.kv_a_proj_with_mqa")
        c, k_rope = split(kv_a, self.text.kv_lora_rank)
        c = self.rms_norm(c, f"{attn}.kv_a_layernorm", self.text.latent_norm_eps)
        row = join(c, self.rotate(k_rope, start))
        return Near(row.value, (row.error + BF16 * np.abs(row.value)))

    def queries(self, layer: int, x: Near, start: int) -> Near:
        text, attn = self.text, f"model.layers.{layer}.self_attn"
        q_a = self.linear(self.input_norm(layer, x), f"{attn}.q_a_proj")
        q_a = self.rms_norm(q_a, f"{attn}.q_a_layernorm", text.latent_norm_eps)
        q = self.linear(q_a, f"{attn}.q_b_proj")
        shape = (len(x.value), text.num_attention_heads, -1)
        q = Near(q.value.reshape(shape), q.error.reshape(shape))
        nope, rope = split(q, text.qk_nope_head_dim)
        return join(nope, self.rotate(rope, start))

    def attend(self, layer: int, x: Near, start: int, rows: F64) -> Near:
        """Rows are exact: those that the implementation stored."""
        text, attn = self.text, f"model.layers.{layer}.self_attn"
        q = self.queries(layer, x, start)
        heads, nope = text.num_attention_heads, text.qk_nope_head_dim
        kv_b = self.weight(f"{attn}.kv_b_proj").reshape(heads, -1, text.kv_lora_rank)
        mixed = [
            [
                self._head(Near(q.value[t, h], q.error[t, h]), kv_b[h], nope, rows[: start + t + 1])
                for h in range(heads)
            ]
            for t in range(len(x.value))
        ]
        value = np.array([np.concatenate([head.value for head in row]) for row in mixed])
        error = np.array([np.concatenate([head.error for head in row]) for row in mixed])
        out = self.linear(Near(value, error), f"{attn}.o_proj")
        return total(x, out)

    def _head(self, q: Near, kv_b: F64, nope: int, rows: F64) -> Near:
        """One token and head. Score errors up to e change a softmax weight by e^(2e) at most."""
        latent, scale = kv_b.shape[1], self.reference.softmax_scale()
        q_nope, q_rope = split(q, nope)
        query = join(product(q_nope, kv_b[:nope].T), q_rope)
        score = product(query, rows)
        scores = score.value * scale
        worst = np.max(score.error * scale + 2 * U * np.abs(scores))
        blocks = len(rows) // 64 + 1
        relative = np.expm1(2 * worst) + 2 * EXP + U * (np.sqrt(len(rows) / 8) + 8 + 4 * blocks)
        weights, c = softmax(scores), rows[:, :latent]
        mixed_error = (weights @ np.abs(c)) * (relative + U * (np.sqrt(len(rows)) + 4))
        return product(Near(weights @ c, mixed_error), kv_b[nope:])

    def swiglu(self, x: Near, prefix: str) -> Near:
        """|silu'| <= 1.1; silu itself: exp, an addition and a division."""
        gate = self.linear(x, f"{prefix}.gate_proj")
        up = self.linear(x, f"{prefix}.up_proj")
        silu = gate.value * sigmoid(gate.value)
        silu_error = 1.1 * gate.error + (EXP + 4 * U) * np.abs(silu)
        error = np.abs(up.value) * silu_error + np.abs(silu) * (up.error + U * np.abs(up.value))
        hidden = Near(silu * up.value, error)
        return self.linear(hidden, f"{prefix}.down_proj")

    def dense(self, layer: int, x: Near) -> Near:
        return total(x, self.swiglu(self.post_norm(layer, x), f"model.layers.{layer}.mlp"))

    def scores(self, layer: int, x: Near) -> Near:
        """|sigmoid'| <= 1/4."""
        logits = self.linear(self.post_norm(layer, x), f"model.layers.{layer}.mlp.gate")
        scores = sigmoid(logits.value)
        return Near(scores, (logits.error / 4 + (EXP + 3 * U) * scores))

    def routing_weights(self, layer: int, x: Near) -> Near:
        """A quotient of a score and a sum of k scores: relative errors add."""
        routed, scores = self.reference.route(layer, x.value), self.scores(layer, x)
        k = self.text.num_experts_per_tok
        chosen = np.take_along_axis(scores.value, routed.expert_ids, axis=1)
        errors = np.take_along_axis(scores.error, routed.expert_ids, axis=1)
        relative = errors / chosen + errors.sum(1, keepdims=True) / chosen.sum(1, keepdims=True)
        return Near(routed.weights, routed.weights * (relative + (k + 4) * U))


def product(x: Near, weight: F64) -> Near:
    """x W^T by one fused multiply-add a term."""
    size = np.abs(x.value) @ np.abs(weight).T
    inherited = np.sqrt(x.error**2 @ (weight**2).T)
    return Near(x.value @ weight.T, inherited + np.sqrt(weight.shape[1]) * U * size)


def total(x: Near, y: Near) -> Near:
    value = x.value + y.value
    return Near(value, x.error + y.error + U * np.abs(value))


def split(x: Near, at: int) -> tuple[Near, Near]:
    return (
        Near(x.value[..., :at], x.error[..., :at]),
        Near(x.value[..., at:], x.error[..., at:]),
    )


def join(x: Near, y: Near) -> Near:
    return Near(
        np.concatenate([x.value, y.value], axis=-1), np.concatenate([x.error, y.error], axis=-1)
    )


def excess(computed: NDArray, near: Near) -> float:
    """Largest distance in units of the bound: at most 1 if the kernel is right."""
    distance = np.abs(computed.astype(np.float64) - near.value)
    return float(np.max(distance / (LAMBDA * np.maximum(near.error, 1e-300))))
