"""Expert records in the memory of one device, and what they say about tokens.

    slots    uint8 [count, nbytes]: one record (cpu_experts/record.py) a slot, in no order

The owner of the slots decides which expert lies where and translates ids to slots; here a slot is
a number. Records may change between calls, never during one.
"""

import torch
from torch import Tensor

from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import ConfigError, RequestError
from hybrid.gpu_experts import ops

MODES = "int8", "int16", "bf16"  # design §4.1


class GpuExperts:
    """The routed experts of a device, whatever layer they belong to."""

    def __init__(self, shape: RecordShape, slots: Tensor, activation: str) -> None:
        """`slots` is its owner's; `activation` is one of MODES. Raises ConfigError."""
        if activation not in MODES:
            raise ConfigError(f"activation is {activation!r}; choose one of {', '.join(MODES)}")
        fits = slots.dtype == torch.uint8 and slots.ndim == 2 and slots.shape[1] == shape.nbytes
        if not fits or not slots.is_contiguous():
            raise ConfigError(
                f"slots is {_seen(slots)}; it must be contiguous uint8 [count, {shape.nbytes}]"
            )
        self.shape = shape
        self.slots = slots
        self.activation = activation

    def outputs(self, x: Tensor, slot_ids: Tensor, outputs: Tensor) -> None:
        """Write what the record in each slot says about its token; nothing waits for the device.

        x f32 [T, hidden], slot_ids int32 [T, k] with -1 for "skip", outputs f32 [T * k, hidden], of
        which row t * k + j is written and rows of -1 are left alone. All on the slots' device; that
        ids are -1 ... count - 1 is the caller's duty: looking would wait for the device.
        Raises RequestError for a wrong dtype, shape or device.
        """
        tokens, hidden = slot_ids.shape[0], self.shape.hidden
        self._check("x", x, torch.float32, (tokens, hidden))
        self._check("slot_ids", slot_ids, torch.int32, (tokens, slot_ids.shape[1]))
        self._check("outputs", outputs, torch.float32, (slot_ids.numel(), hidden))
        if not tokens:
            return
        ops.experts_outputs(
            x, slot_ids, self.slots, hidden, self.shape.intermediate, self.activation, outputs
        )

    def _check(self, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, int]) -> None:
        fits = tensor.dtype == dtype and tensor.shape == shape and tensor.is_contiguous()
        if not fits or tensor.device != self.slots.device:
            raise RequestError(
                f"{name} is {_seen(tensor)}; it must be contiguous {_short(dtype)} {shape} "
                f"on {self.slots.device}",
                name,
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _seen(tensor: Tensor) -> str:
    return f"{_short(tensor.dtype)} {tuple(tensor.shape)} on {tensor.device}"
