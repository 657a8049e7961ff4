"""The operators of the routed experts: one name each, three bodies.

    CPU tensors    plain.py, one torch operation after the other
    CUDA tensors   launch.py, Triton kernels
    fake tensors   shapes only: nothing is computed

An operator hides its body from whatever traces, fakes or captures what calls it, and Triton is
imported by the CUDA body alone. Shapes are checked where they come in (experts.py).
"""

import torch
from torch import Tensor

from hybrid.cpu_experts.record import RecordShape
from hybrid.gpu_experts import plain


@torch.library.custom_op("kimi_local::experts_outputs", mutates_args=("outputs",))
def experts_outputs(
    x: Tensor,
    slot_ids: Tensor,
    slots: Tensor,
    hidden: int,
    intermediate: int,
    mode: str,
    outputs: Tensor,
) -> None:
    """Write expert(x) of every slot id that is not -1 to its row of `outputs`.

    x f32 [T, hidden], slot_ids int32 [T, k], slots uint8 [count, nbytes], outputs f32
    [T * k, hidden], of which row t * k + slot is written and rows of -1 are left alone.
    """
    plain.outputs(x, slot_ids, slots, RecordShape(hidden, intermediate), mode, outputs)


@experts_outputs.register_kernel("cuda")
def _outputs_cuda(
    x: Tensor,
    slot_ids: Tensor,
    slots: Tensor,
    hidden: int,
    intermediate: int,
    mode: str,
    outputs: Tensor,
) -> None:
    from hybrid.gpu_experts import launch

    launch.outputs(x, slot_ids, slots, RecordShape(hidden, intermediate), mode, outputs)


@experts_outputs.register_fake
def _outputs_fake(
    x: Tensor,
    slot_ids: Tensor,
    slots: Tensor,
    hidden: int,
    intermediate: int,
    mode: str,
    outputs: Tensor,
) -> None:
    return None


@torch.library.custom_op("kimi_local::experts_combine", mutates_args=())
def combine(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The sum, in slot order, of weight * output over all ids that are not -1: f32 [T, hidden].

    outputs f32 [T * k, hidden], ids int32 [T, k], weights f32 [T, k]. Each product and each sum is
    rounded on its own, as in ExpertLayer.combine; rows of -1 are not read.
    """
    return plain.combine(outputs, ids, weights)


@combine.register_kernel("cuda")
def _combine_cuda(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    from hybrid.gpu_experts import launch

    return launch.combine(outputs, ids, weights)


@combine.register_fake
def _combine_fake(outputs: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    return outputs.new_empty(ids.shape[0], outputs.shape[1])
