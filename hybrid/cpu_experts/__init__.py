"""The routed experts on the CPU: record layout, SIMD kernels, worker pool, `ExpertLayer`.

Names resolve on first use: `record` (pure arithmetic) must not cost an import of numba.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid.cpu_experts.dispatch import available_isas, warm_up
    from hybrid.cpu_experts.layer import ExpertLayer
    from hybrid.cpu_experts.selfcheck import verify

__all__ = ["ExpertLayer", "available_isas", "verify", "warm_up"]

_HOME = {
    "ExpertLayer": "hybrid.cpu_experts.layer",
    "available_isas": "hybrid.cpu_experts.dispatch",
    "verify": "hybrid.cpu_experts.selfcheck",
    "warm_up": "hybrid.cpu_experts.dispatch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hybrid.cpu_experts' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
