"""What the tiers did, as plain numbers: the `tiers` of `engine.stats()`.

vram, ram, nvme   where uses were served from: picks, uses ("expert_reads"), their share, bytes;
                  how many records are there now; GB/s of the link
layers            the same uses by layer, waits, and how many guesses were right
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybrid.cache.counters import FILE, TIERS, Counters
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.promotions import Promotions
from hybrid.cache.reader import Reader


def report(
    maps: Sequence[LayerMap],
    counters: Counters,
    reader: Reader | None,
    promotions: Promotions | None,
    streamed: dict[str, int],
) -> dict[str, Any]:
    """Sums since loading. RAM's GB/s is of all that the CPU computed, wherever it came from."""
    tiers = {name: counters.tier(tier) for tier, name in enumerate(TIERS)}
    tiers["ram"] |= {
        "records": sum(int(np.count_nonzero(own.ram >= 0)) for own in maps),
        "gb_per_s": _rate(tiers["ram"]["bytes"] + tiers["nvme"]["bytes"], counters.compute_s),
    }
    tiers["vram"] |= {
        "records": sum(int(np.count_nonzero(own.vram >= 0)) for own in maps),
        "promotions": promotions.promoted if promotions else 0,
        "demotions": promotions.demoted if promotions else 0,
        "copied_bytes": promotions.copied_bytes if promotions else 0,
        "gb_per_s": _rate(promotions.copied_bytes, promotions.copy_s) if promotions else 0.0,
        "streamed": streamed,
    }
    predicted, foreseen = int(counters.predicted.sum()), int(counters.foreseen.sum())
    tiers["nvme"] |= {
        "records": sum(int(np.count_nonzero(own.tiers() == FILE)) for own in maps),
        "source": reader.kind if reader else None,
        "reads": reader.reads if reader else 0,
        "read_bytes": reader.nbytes if reader else 0,
        "busy_s": round(reader.busy_s, 6) if reader else 0.0,
        "gb_per_s": _rate(reader.nbytes, reader.busy_s) if reader else 0.0,
        "stalled_s": round(float(counters.stalled_s.sum()), 6),
        "prefetch": {
            "reads": predicted,
            "used": foreseen,
            "precision": round(foreseen / predicted, 4) if predicted else None,
        },
    }
    return tiers | {"layers": counters.by_layer()}


def _rate(nbytes: int, seconds: float) -> float:
    return round(nbytes / 1e9 / seconds, 3) if seconds > 0 else 0.0
