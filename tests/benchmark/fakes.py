"""An engine without a model, on a clock of its own: every number of a row can be worked out."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

PREFILL_NS, STEP_NS = 2_000_000, 10_000_000  # a token of a prompt, a token of the answer
VOCAB = 1000
EXPERTS, PICKS, LAYERS = 8, 2, 3  # the first layer has no experts
RECORD = 1_000_000  # bytes
COUNTERS = {
    "vram": ("expert_reads", "bytes", "promotions", "copied_bytes"),
    "ram": ("expert_reads", "bytes"),
    "nvme": ("expert_reads", "bytes", "read_bytes", "busy_s", "stalled_s"),
}


class Clock:
    """In place of perf_counter_ns."""

    def __init__(self):
        self.ns = 0

    def __call__(self):
        return self.ns


class FakeTimeline:
    """Computes the next token as the sum of what it has seen; knows what it was asked."""

    rows = list  # what holds its tokens

    def __init__(self, engine, clock, capacity=500):
        self.engine, self.clock, self.capacity = engine, clock, capacity
        self.tokens, self.calls = self.rows(), []

    def prefill(self, prompt, poll=lambda: None, sink=None):
        poll()
        known = next(
            (i for i, (a, b) in enumerate(zip(self.tokens, prompt.ids)) if a != b),  # noqa: B905
            min(len(self.tokens), len(prompt.ids)),
        )
        known = min(known, len(prompt.ids) - 1)
        self.calls.append(("prefill", len(prompt.ids), len(prompt.ids) - known))
        self.tokens = self.rows(prompt.ids)
        self.clock.ns += PREFILL_NS * (len(prompt.ids) - known)
        self.engine.count(len(prompt.ids) - known, uses=EXPERTS)
        return self._logits(), known

    def step(self, token, poll=lambda: None):
        poll()
        self.calls.append(("step", token))
        self.tokens.append(token)
        self.clock.ns += STEP_NS
        self.engine.count(1, uses=PICKS)
        return self._logits()

    def _logits(self):
        logits = np.zeros(VOCAB, np.float32)
        logits[(sum(self.tokens) + self.engine.fault) % VOCAB] = 1
        return logits


class FakeEngine:
    """As much of hybrid.Engine as a benchmark sees. A quarter of all uses comes from disk."""

    def __init__(self, clock, fault=0):
        self.fault, self.watcher, self.closed = fault, None, False
        self.timeline = FakeTimeline(self, clock)
        self.seconds = {"attention": 0.0, "experts": 0.0}
        self.tiers = {tier: dict.fromkeys(names, 0.0) for tier, names in COUNTERS.items()}
        self.config = SimpleNamespace(
            text=SimpleNamespace(
                vocab_size=VOCAB,
                moe_layers=LAYERS - 1,
                num_hidden_layers=LAYERS,
                n_routed_experts=EXPERTS,
                is_moe=lambda layer: layer > 0,
            )
        )

    kv_tokens = property(lambda self: self.timeline.capacity)

    def _open(self):
        return self.timeline

    def count(self, tokens, uses):
        layers = LAYERS - 1
        self.seconds["attention"] += 0.001 * tokens
        self.seconds["experts"] += 0.005 * tokens
        for tier, share in (("ram", 0.75), ("nvme", 0.25)):
            self.tiers[tier]["expert_reads"] += share * uses * layers
            self.tiers[tier]["bytes"] += share * uses * layers * RECORD
        self.tiers["nvme"]["read_bytes"] += 0.25 * uses * layers * RECORD
        self.tiers["nvme"]["busy_s"] += 0.002 * tokens
        self.tiers["nvme"]["stalled_s"] += 0.001 * tokens
        if self.watcher:
            for layer in range(1, LAYERS):
                ids = np.tile(np.arange(PICKS, dtype=np.int32), (tokens, 1))
                self.watcher(layer, 0, ids, np.ones_like(ids, np.float32), tokens > 1)

    def stats(self):
        return {
            "seconds": dict(self.seconds),
            "tiers": {name: dict(tier) for name, tier in self.tiers.items()},
        }

    @contextmanager
    def record(self, watcher):
        self.watcher = watcher
        yield
        self.watcher = None


class Opened:
    """Opens engines, and remembers them."""

    def __init__(self, clock, **options):
        self.clock, self.options, self.engines = clock, options, []

    @contextmanager
    def __call__(self):
        engine = FakeEngine(self.clock, **self.options)
        self.engines.append(engine)
        yield engine
        engine.closed = True
