"""What a model's experts were worth when it last ran: where the next run begins.

Kept beside the compiled kernels, as plain float32 [layers, experts], one file for each model. It
decides which records are read first and nothing else: a wrong or missing file costs time alone.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hybrid.checkpoint import Checkpoint
from hybrid.cpu_experts import kernel_files

Scores = NDArray[np.float64]  # [layers with experts, experts]


def key_of(checkpoint: Checkpoint) -> str:
    """A name for the model: its tensors and where they lie in its files."""
    facts = hashlib.sha256()
    for name in checkpoint:
        info = checkpoint.info(name)
        facts.update(repr((name, info.dtype, info.shape, info.file, info.offset)).encode())
    return facts.hexdigest()[:24]


def recall(key: str, layers: int, experts: int) -> Scores | None:
    """The scores of an earlier run, None if there are none of this shape."""
    content = kernel_files.read("experts", key)
    if content is None or len(content) != layers * experts * 4:
        return None
    scores = np.frombuffer(content, np.float32).reshape(layers, experts).astype(np.float64)
    return scores if np.isfinite(scores).all() and (scores >= 0).all() else None


def keep(key: str, scores: Scores) -> None:
    """Remember the scores of this run."""
    kernel_files.write("experts", key, scores.astype(np.float32).tobytes())
