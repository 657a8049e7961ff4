"""What a layer of a token costs beyond arithmetic and memory: Python, calls, waking threads.

A model with K2.5's layout, but few layers and matrices too small to matter, is written to a
temporary directory, loaded and decoded token by token.
"""

import statistics
import tempfile
import time
from pathlib import Path

from hybrid.config import ModelConfig
from hybrid.hardware.kept_rates import RatesOf
from hybrid.load_options import LoadOptions
from hybrid.loader import load_model
from hybrid.timeline import Timeline
from hybrid.tiny import TinyShape, write_tiny
from hybrid.vision.prompt import Prompt

SHAPE = TinyShape(
    hidden_size=32,
    num_hidden_layers=9,
    num_attention_heads=2,
    q_lora_rank=32,
    kv_lora_rank=32,
    intermediate_size=64,
    n_routed_experts=384,
    num_experts_per_tok=8,
)
WARM_UP, TOKENS = 20, 100


def step_s(what: RatesOf) -> float:
    """Median seconds of a token's layer."""
    with tempfile.TemporaryDirectory() as directory:
        model_dir = write_tiny(Path(directory) / "model", SHAPE, vision=False)
        options = LoadOptions(
            device="cpu",
            threads=what.threads,
            activation=what.activation,
            isa=what.isa,
            kv_tokens=WARM_UP + TOKENS + 1,
        )
        model, _ = load_model(model_dir, ModelConfig.from_dir(model_dir), options)
        try:
            times = _step_times(Timeline(model))
        finally:
            model.experts.close()
    return statistics.median(times) / SHAPE.num_hidden_layers


def _step_times(timeline: Timeline) -> list[float]:
    timeline.prefill(Prompt([1]))
    times = []
    for token in range(WARM_UP + TOKENS):
        began = time.perf_counter()
        timeline.step(token)
        times.append(time.perf_counter() - began)
    return times[WARM_UP:]
