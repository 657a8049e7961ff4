"""Random weights that behave: neither vanishing nor exploding, nowhere flat.

With a flat softmax or a flat router a wrong position or a wrong bias changes nothing, so the scales
are chosen (H = hidden_size; inputs have RMS 1 after a norm):

    attention scores  spread over several units: q and k have RMS 1.1, times about 2 (YaRN's m^2)
    router            logits of spread 1.5; the selection bias replaces about a fifth of the choice
    residual stream   each of 2L sublayers adds 1.5 / sqrt(2L), so that depth does not matter
    output logits     spread 2.5 over the ordinary tokens, decided by the input

Rules are looked up by name in the table at the end.

One coordinate makes the model a conversation partner: hidden[0] is the same in every embedding and
no sublayer writes to it, so lm_head[:, 0] acts as a bias. It keeps reserved slots and stray bytes
out of the answer, and lets </think> and <|im_end|> come after a few dozen tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybrid.chat.vocabulary import Vocabulary
from hybrid.checkpoint.expected import ExpectedTensor, expected_tensors
from hybrid.config import ModelConfig

ATTENTION_SPREAD = 1.1
ROUTER_SPREAD = 1.5
SELECTION_BIAS = 0.5  # times sqrt(chosen / experts): scores lie denser where few are chosen
LOGIT_SPREAD = 2.5
STREAM_GROWTH = 1.5
GATE_SPREAD = 1.3
GATED_RMS = 0.9  # of silu(g) * u, with g and u of spread 1.3
CONSTANT = 0.5  # hidden[0] of an embedding is this times sqrt(H)
NIBBLE_RMS = 4.64  # of a uniform integer from -8 to 7
ZERO_WORD = 0x88888888  # eight nibbles that mean 0
NEVER = -40.0  # logit of a token that must not be sampled
ENDS_AFTER = {"</think>": 20, "<|im_end|>": 80}  # tokens, roughly: most thinking ends in an answer

Array = NDArray[np.float32]
Stored = NDArray[np.generic]  # as in the file: BF16 are uint16 bits


@dataclass(frozen=True, slots=True)
class Source:
    """What every rule needs: the sizes, the vocabulary and the stream of random numbers."""

    config: ModelConfig
    vocabulary: Vocabulary
    rng: np.random.Generator

    def normal(self, shape: tuple[int, ...], std: float) -> Array:
        """Draw float32 numbers of a given spread around 0."""
        return self.rng.standard_normal(shape, np.float32) * np.float32(std)

    def linear(self, want: ExpectedTensor, gain: float = 1.0) -> Array:
        """Draw a matrix whose outputs have the RMS `gain` on inputs of RMS 1."""
        return self.normal(want.shape, gain / math.sqrt(math.prod(want.shape[1:])))

    @property
    def constant(self) -> float:
        """The value that hidden[0] of every embedding row has."""
        return CONSTANT * math.sqrt(self.config.text.hidden_size)

    @property
    def sublayer_rms(self) -> float:
        """What one attention or FFN adds to the residual stream."""
        return STREAM_GROWTH / math.sqrt(2 * self.config.text.num_hidden_layers)


def random_tensors(
    config: ModelConfig, vocabulary: Vocabulary, seed: int
) -> Iterator[tuple[ExpectedTensor, Stored]]:
    """Yield every tensor of the model with its published dtype, in the order of the list."""
    source = Source(config, vocabulary, np.random.default_rng(seed))
    for want in expected_tensors(config):
        values = _rule(want.name)(source, want)
        yield want, bf16(values) if want.dtypes[0] == "BF16" else values


def bf16(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Round float32 to bf16 bits, half to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


Rule = Callable[[Source, ExpectedTensor], Stored]


def _rule(name: str) -> Rule:
    parts = name.split(".")
    for key in (".".join(parts[-2:]), parts[-2], parts[-1]):
        if key in RULES:
            return RULES[key]
    raise KeyError(name)


def _embedding(source: Source, want: ExpectedTensor) -> Array:
    rows = source.normal(want.shape, 1.0)  # [vocab, hidden]
    rows[:, 0] = source.constant
    return rows


def _head(source: Source, want: ExpectedTensor) -> Array:
    rows = source.linear(want, LOGIT_SPREAD)  # [vocab, hidden]
    stream_rms = math.sqrt(1 + STREAM_GROWTH**2 + CONSTANT**2)
    rows[:, 0] = _logit_bias(source.vocabulary) * np.float32(stream_rms / source.constant)
    return rows


def _logit_bias(vocabulary: Vocabulary) -> Array:
    readable = [_is_readable(token) for token in vocabulary.base]
    ordinary = [0.0 if good else NEVER for good in readable]
    ends = {name: math.log(max(sum(readable), n) / n) for name, n in ENDS_AFTER.items()}
    special = [ends.get(name, NEVER) for name in vocabulary.special]
    return np.array(ordinary + special, np.float32)  # [vocab]


def _is_readable(token: bytes) -> bool:
    try:
        return token.decode().replace("\n", " ").isprintable()
    except UnicodeDecodeError:
        return False


def _norm(source: Source, want: ExpectedTensor) -> Array:
    return source.rng.uniform(0.6, 1.4, want.shape).astype(np.float32)


def _stream_norm(source: Source, want: ExpectedTensor) -> Array:
    weight = _norm(source, want)
    weight[0] = 0.25  # or the constant would drown the rest
    return weight


def _final_norm(source: Source, want: ExpectedTensor) -> Array:
    weight = _norm(source, want)
    weight[0] = 1.0  # so that the head knows its bias
    return weight


def _kv_a(source: Source, want: ExpectedTensor) -> Array:
    rows = source.linear(want)  # [kv_lora_rank + rope, hidden]
    rows[source.config.text.kv_lora_rank :] *= ATTENTION_SPREAD  # keys as they are, not normed
    return rows


def _attention_out(source: Source, want: ExpectedTensor) -> Array:
    return _silent_row(source.linear(want, source.sublayer_rms * 1.3))  # averaging has cost a third


def _dense_down(source: Source, want: ExpectedTensor) -> Array:
    share = 1.0 if want.component == "dense" else 0.6
    return _silent_row(source.linear(want, share * source.sublayer_rms / GATED_RMS))


def _silent_row(rows: Array) -> Array:
    rows[0] = 0  # nothing writes to hidden[0]
    return rows


def _router(source: Source, want: ExpectedTensor) -> Array:
    rows = source.linear(want, ROUTER_SPREAD)  # [experts, hidden]
    rows[:, 0] = 0
    return rows


def _selection_bias(source: Source, want: ExpectedTensor) -> Array:
    text = source.config.text
    reach = SELECTION_BIAS * math.sqrt(text.num_experts_per_tok / text.n_routed_experts)
    return source.rng.uniform(-reach, reach, want.shape).astype(np.float32)


def _packed(source: Source, want: ExpectedTensor) -> Stored:
    random = bytearray(source.rng.bytes(4 * math.prod(want.shape)))
    words = np.frombuffer(random, "<u4").reshape(want.shape)  # [out, in / 8]
    if "down_proj" in want.name:
        words[0] = ZERO_WORD
    return words.view(np.int32)


def _scale(source: Source, want: ExpectedTensor) -> Array:
    text = source.config.text
    if "down_proj" in want.name:
        per_expert = math.sqrt(text.num_experts_per_tok) / text.routed_scaling_factor
        gain = 0.8 * source.sublayer_rms * per_expert / GATED_RMS
        inputs = text.moe_intermediate_size
    else:
        gain, inputs = GATE_SPREAD, text.hidden_size
    jitter = np.exp(source.normal(want.shape, 0.3))  # [out, in / 32]
    return jitter * np.float32(gain / math.sqrt(inputs) / NIBBLE_RMS)


def _logical_shape(source: Source, want: ExpectedTensor) -> Stored:
    text = source.config.text
    shape = (text.moe_intermediate_size, text.hidden_size)
    return np.array(shape[::-1] if "down_proj" in want.name else shape, np.int32)


def _vision_qkv(source: Source, want: ExpectedTensor) -> Array:
    rows = source.linear(want)  # [3 x size, size]
    rows[: 2 * want.shape[1]] *= 1.5
    return rows


def _projector_out(source: Source, want: ExpectedTensor) -> Array:
    return _silent_row(source.linear(want, 1.5))


def _projector_out_bias(source: Source, want: ExpectedTensor) -> Array:
    bias = source.normal(want.shape, 0.1)
    bias[0] = source.constant  # an image token looks like an embedding to the rest
    return bias


def _linear(gain: float) -> Rule:
    return lambda source, want: source.linear(want, gain)


def _normal(std: float) -> Rule:
    return lambda source, want: source.normal(want.shape, std)


RULES: Mapping[str, Rule] = {
    "embed_tokens": _embedding,
    "lm_head.weight": _head,
    "norm.weight": _final_norm,
    "input_layernorm": _stream_norm,
    "post_attention_layernorm": _stream_norm,
    "q_a_layernorm": _norm,
    "kv_a_layernorm": _norm,
    "q_a_proj": _linear(1.0),
    "q_b_proj": _linear(ATTENTION_SPREAD),
    "kv_a_proj_with_mqa": _kv_a,
    "kv_b_proj": _linear(ATTENTION_SPREAD),
    "o_proj": _attention_out,
    "gate_proj.weight": _linear(GATE_SPREAD),
    "up_proj.weight": _linear(GATE_SPREAD),
    "down_proj.weight": _dense_down,
    "gate.weight": _router,
    "e_score_correction_bias": _selection_bias,
    "weight_packed": _packed,
    "weight_scale": _scale,
    "weight_shape": _logical_shape,
    "pre_norm.weight": _norm,
    "norm0.weight": _norm,
    "norm1.weight": _norm,
    "final_layernorm.weight": _norm,
    "pos_emb": _normal(0.5),
    "wqkv.weight": _vision_qkv,
    "wo.weight": _linear(0.5),
    "fc0.weight": _linear(1.2),
    "fc1.weight": _linear(0.7),
    "proj.weight": _linear(1.5),
    "0.weight": _linear(1.0),
    "2.weight": _projector_out,
    "2.bias": _projector_out_bias,
    "bias": _normal(0.1),
}
"""Last two parts of a name, or the one before the last, or the last -> how it is drawn."""
