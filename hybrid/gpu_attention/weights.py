"""Checkpoint tensors as torch tensors on a device."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid.checkpoint import TensorInfo
from hybrid.errors import ConfigError
from hybrid.gpu_attention.codes import Weight, encode
from hybrid.progress import Progress, ProgressSink


class Tensors(Protocol):
    """What is asked of a checkpoint: `hybrid.checkpoint.Checkpoint` is one."""

    def tensor(self, name: str) -> NDArray[Any]:
        """The values; BF16 as uint16 bits."""

    def info(self, name: str) -> TensorInfo:
        """Its type and shape."""


class WeightReader:
    """Reads a tensor by name, converts it, uploads it and reports the bytes."""

    def __init__(
        self,
        checkpoint: Tensors,
        device: torch.device,
        dtype: torch.dtype,
        total_bytes: int,
        sink: ProgressSink,
        weights: str = "bf16",
    ) -> None:
        """`weights`: "int8" codes every matrix (codes.py); "bf16" leaves it in `dtype`."""
        if weights not in ("bf16", "int8"):
            raise ConfigError(f"backbone weights are {weights!r}; choose bf16 or int8")
        self.device = device
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._sink = sink
        self._weights = weights
        self._done = 0
        self._total = total_bytes

    def __call__(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Put a tensor on the device, in the activation type unless told otherwise."""
        return self.on_host(name, dtype).to(self.device)

    def matrix(self, *names: str) -> Weight:
        """A matrix [out, in] to multiply with; several names are stacked above one another."""
        return self.coded(
            torch.cat([self(name) for name in names]) if names[1:] else self(names[0])
        )

    def coded(self, matrix: Tensor) -> Weight:
        """A matrix [..., out, in] on the device as it is to be kept."""
        return encode(matrix) if self._weights == "int8" else matrix.contiguous()

    def on_host(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor in memory: copied out of a mapped file, so that the file may be closed.

        What may be written to is no view of a file and is taken as it is.
        """
        stored = self._checkpoint.tensor(name)
        owned = torch.from_numpy(stored if stored.flags.writeable else np.array(stored))
        if self._checkpoint.info(name).dtype == "BF16":
            owned = owned.view(torch.bfloat16)
        self._done += stored.nbytes
        self._sink(Progress("weights", self._done, self._total, "bytes"))
        return owned.to(dtype or self._dtype)
