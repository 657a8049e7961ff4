"""The sizes of a model's matrices, on which rates depend: small ones run at other speeds."""

from dataclasses import dataclass

from hybrid.config import TextConfig


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What a calibration computes with; config.json's names."""

    hidden_size: int
    moe_intermediate_size: int
    num_experts_per_tok: int
    backbone: tuple[tuple[int, int], ...]  # rows and columns of what a layer multiplies

    @classmethod
    def of(cls, text: TextConfig) -> "ModelSizes":
        """The sizes of a model: attention's projections and the shared expert."""
        hidden, heads = text.hidden_size, text.num_attention_heads
        query = heads * (text.qk_nope_head_dim + text.qk_rope_head_dim)
        latent = text.kv_lora_rank + text.qk_rope_head_dim
        shared = text.n_shared_experts * text.moe_intermediate_size
        matrices = (
            (text.q_lora_rank + latent, hidden),
            (query, text.q_lora_rank),
            (hidden, heads * text.v_head_dim),
            (2 * shared, hidden),
            (hidden, shared),
        )
        return cls(
            hidden,
            text.moe_intermediate_size,
            text.num_experts_per_tok,
            tuple(shape for shape in matrices if min(shape) > 0),
        )


K25 = ModelSizes(
    7168, 2048, 8, ((2112, 7168), (12288, 1536), (7168, 8192), (4096, 7168), (7168, 2048))
)
