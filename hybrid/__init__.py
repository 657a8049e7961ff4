"""The runtime: token ids in, events out. Nothing here prints, parses HTTP or owns a terminal.

Names resolve on first use, so that `import hybrid` costs nothing and `--help` stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybrid import errors
    from hybrid.config import ModelConfig
    from hybrid.engine import Engine, load
    from hybrid.events import Event, TokenLogprob, ToolCall, Usage
    from hybrid.models import KIMI_NANO
    from hybrid.progress import Progress
    from hybrid.sampling import SamplingParams
    from hybrid.vision.media import Media

__all__ = [
    "KIMI_NANO",
    "Engine",
    "Event",
    "Media",
    "ModelConfig",
    "Progress",
    "SamplingParams",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "errors",
    "load",
]

_HOME = {
    "KIMI_NANO": "hybrid.models",
    "Engine": "hybrid.engine",
    "Event": "hybrid.events",
    "Media": "hybrid.vision.media",
    "ModelConfig": "hybrid.config",
    "Progress": "hybrid.progress",
    "SamplingParams": "hybrid.sampling",
    "TokenLogprob": "hybrid.events",
    "ToolCall": "hybrid.events",
    "Usage": "hybrid.events",
    "load": "hybrid.engine",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("hybrid.errors")
    if name not in _HOME:
        raise AttributeError(f"module 'hybrid' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
