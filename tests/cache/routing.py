"""Traces for tests: one made here with topics that come and go, and the published one."""

from pathlib import Path

import numpy as np
import pytest

from hybrid.cache.trace_file import Trace, read_trace

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "routing" / "kimi_linear_300.jsonl"


def published():
    """Kimi-Linear: 300 decoded tokens, 26 layers, 256 experts, top-8; skips where it is absent."""
    if not PUBLISHED.exists():
        pytest.skip("the published routing trace is not on this machine")
    return read_trace(PUBLISHED)


def made(tokens=60, layers=3, experts=40, k=4, seed=0, prompt=0):
    """Some experts are always wanted, others while their topic lasts: 20 tokens."""
    rng = np.random.default_rng(seed)
    picks = np.empty((tokens, layers, k), np.int32)
    for layer in range(layers):
        always = rng.gamma(0.4, size=experts)
        for token in range(tokens):
            if token % 20 == 0:
                topic = rng.gamma(0.1, size=experts)
            weights = always + 3 * topic + 1e-6
            weights /= weights.sum()
            picks[token, layer] = rng.choice(experts, k, replace=False, p=weights)
    return Trace(picks, np.arange(tokens) < prompt, experts)
