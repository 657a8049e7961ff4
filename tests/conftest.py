"""Checkpoints and engines that many tests share; made once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid.tiny import TinyShape, write_tiny

SHAPES: dict[str, tuple[TinyShape, bool]] = {  # name -> shape, whether names have the prefix
    "k2.5": (TinyShape(), True),
    "k2-thinking": (
        TinyShape(
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=3,
            q_lora_rank=40,
            kv_lora_rank=48,
            qk_nope_head_dim=24,
            qk_rope_head_dim=8,
            v_head_dim=20,
            moe_intermediate_size=64,
            n_routed_experts=12,
            num_experts_per_tok=3,
        ),
        False,
    ),
    "two-dense-two-shared": (
        TinyShape(
            hidden_size=32,
            num_hidden_layers=5,
            num_attention_heads=1,
            first_k_dense_replace=2,
            n_shared_experts=2,
            n_routed_experts=24,
            num_experts_per_tok=8,
        ),
        True,
    ),
}


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny checkpoint by the name of its shape."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            shape, prefix = SHAPES[name]
            directory = tmp_path_factory.mktemp("tiny") / name
            made[name] = write_tiny(directory, shape, seed=1, prefix=prefix)
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_dir(checkpoint_dir: Callable[[str], Path]) -> Path:
    """The default tiny checkpoint."""
    return checkpoint_dir("k2.5")


@pytest.fixture(scope="session")
def oracle(checkpoint_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory):
    """Transformers' model of a tiny checkpoint, by the name of its shape."""
    import torch

    from tests.reference.transformers_model import Oracle, dense_copy

    torch.set_num_threads(1)  # tiny matrices: a second thread only waits for the first
    made: dict[str, Oracle] = {}

    def make(name: str) -> Oracle:
        if name not in made:
            target = tmp_path_factory.mktemp("dense") / name
            made[name] = Oracle(dense_copy(checkpoint_dir(name), target))
        return made[name]

    return make
