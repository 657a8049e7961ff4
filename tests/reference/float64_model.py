"""The text model once more, slow and plain: numpy float64, no cache, no absorption (spec §3).

Reads a checkpoint directory with its own ten lines, so that it shares nothing with the runtime.
`probes` collects what shows whether a model is sensitive: spreads of scores, routing and stream.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from tests.checkpoint_files import all_tensors

NUMPY = {"BF16": "<u2", "F32": "<f4", "I32": "<i4"}


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rms(x):
    return float(np.sqrt(np.mean(x * x)))


class Float64Model:
    def __init__(self, directory: Path):
        config = json.loads((directory / "config.json").read_text())
        self.c = config.get("text_config", config)
        self.stored = {
            name.removeprefix("language_model."): tensor
            for name, tensor in all_tensors(directory).items()
        }
        self.probes = defaultdict(list)

    def raw(self, name):
        dtype, shape, data = self.stored[name]
        return np.frombuffer(data, NUMPY[dtype]).reshape(shape), dtype

    def weight(self, name):
        values, dtype = self.raw(f"{name}.weight")
        return widen(values) if dtype == "BF16" else values.astype(np.float64)

    def int4(self, name):
        packed, _ = self.raw(f"{name}.weight_packed")  # [out, in / 8]
        scale, _ = self.raw(f"{name}.weight_scale")  # [out, in / 32]
        shifts = np.arange(0, 32, 4, dtype=np.uint32)
        nibbles = (packed.view(np.uint32)[:, :, None] >> shifts) & 15  # [out, in / 8, 8]
        values = nibbles.reshape(len(packed), -1).astype(np.float64) - 8
        return values * np.repeat(widen(scale), 32, axis=1)

    def norm(self, x, name, eps):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self.weight(name)

    def logits(self, ids):
        c = self.c
        x = self.weight("model.embed_tokens")[ids]  # [tokens, hidden]
        for layer in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            h = self.norm(x, f"{prefix}input_layernorm", c["rms_norm_eps"])
            added = self.attention(h, f"{prefix}self_attn.")
            self.probes["attention"].append(rms(added))
            x = x + added
            h = self.norm(x, f"{prefix}post_attention_layernorm", c["rms_norm_eps"])
            moe = layer >= c["first_k_dense_replace"]
            x = x + (self.moe(h, f"{prefix}mlp.") if moe else self.dense(h, f"{prefix}mlp."))
            self.probes["stream"].append(rms(x))
        return self.norm(x, "model.norm", c["rms_norm_eps"]) @ self.weight("lm_head").T

    def attention(self, h, prefix):
        c, tokens = self.c, len(h)
        nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        heads = c["num_attention_heads"]
        latent_q = self.norm(h @ self.weight(f"{prefix}q_a_proj").T, f"{prefix}q_a_layernorm", 1e-6)
        q = (latent_q @ self.weight(f"{prefix}q_b_proj").T).reshape(tokens, heads, nope + rope)
        kv = h @ self.weight(f"{prefix}kv_a_proj_with_mqa").T
        rank = c["kv_lora_rank"]
        latent = self.norm(kv[:, :rank], f"{prefix}kv_a_layernorm", 1e-6)
        k_rope = self.rotate(kv[:, None, rank:])[:, 0]  # [tokens, rope], one for all heads
        kv = (latent @ self.weight(f"{prefix}kv_b_proj").T).reshape(tokens, heads, nope + value)
        scores = np.einsum("thd,shd->hts", q[..., :nope], kv[..., :nope])
        scores += np.einsum("thd,sd->hts", self.rotate(q[..., nope:]), k_rope)
        scores *= self.softmax_scale() / math.sqrt(nope + rope)
        past = np.tril(np.ones((tokens, tokens), bool))
        self.probes["score spread"].append(float(scores[:, past].std()))
        p = softmax(np.where(past, scores, -np.inf))
        self.probes["largest share"].append(float(p[:, tokens // 2 :].max(-1).mean()))
        mixed = np.einsum("hts,shd->thd", p, kv[..., nope:]).reshape(tokens, -1)
        return mixed @ self.weight(f"{prefix}o_proj").T

    def softmax_scale(self):
        rope = self.c["rope_scaling"]
        return (0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1) ** 2

    def frequencies(self):
        rope, d, base = self.c["rope_scaling"], self.c["qk_rope_head_dim"], self.c["rope_theta"]
        length = rope["original_max_position_embeddings"]

        def correction(turns):
            return d * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))

        low = max(math.floor(correction(rope["beta_fast"])), 0)
        high = min(math.ceil(correction(rope["beta_slow"])), d - 1)
        i = np.arange(d // 2)
        ramp = np.clip((i - low) / max(high - low, 1e-3), 0, 1)
        return base ** (-2 * i / d) * (1 - ramp + ramp / rope["factor"])

    def rotate(self, x):
        """Turn adjacent pairs of [tokens, heads, rope] by position times frequency."""
        angle = np.arange(len(x))[:, None, None] * self.frequencies()
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    def ffn(self, h, prefix, read=None):
        gate, up, down = (
            (read or self.weight)(f"{prefix}{name}_proj") for name in ("gate", "up", "down")
        )
        return (silu(h @ gate.T) * (h @ up.T)) @ down.T

    def dense(self, h, prefix):
        out = self.ffn(h, prefix)
        self.probes["dense"].append(rms(out))
        return out

    def moe(self, h, prefix):
        c = self.c
        logits = h @ self.weight(f"{prefix}gate").T  # [tokens, experts]
        p = 1 / (1 + np.exp(-logits))
        bias, _ = self.raw(f"{prefix}gate.e_score_correction_bias")
        k = c["num_experts_per_tok"]
        chosen = np.argsort(-(p + bias), axis=-1)[:, :k]
        unbiased = np.argsort(-p, axis=-1)[:, :k]
        moved = [len(set(a) - set(b)) / k for a, b in zip(chosen, unbiased, strict=True)]
        self.probes["router spread"].append(float(logits.std()))
        self.probes["moved by bias"].append(float(np.mean(moved)))
        self.probes["experts used"].append(len(np.unique(chosen)) / c["n_routed_experts"])
        weights = np.take_along_axis(p, chosen, -1)
        weights *= c["routed_scaling_factor"] / (weights.sum(-1, keepdims=True) + 1e-20)
        shared = self.ffn(h, f"{prefix}shared_experts.")
        out = np.zeros_like(h)
        for token in range(len(h)):
            for expert, weight in zip(chosen[token], weights[token], strict=True):
                out[token] += weight * self.ffn(
                    h[token], f"{prefix}experts.{expert}.", read=self.int4
                )
        self.probes["shared"].append(rms(shared))
        self.probes["routed"].append(rms(out))
        return out + shared


def widen(bits):
    """Widen bf16 bits to float64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
