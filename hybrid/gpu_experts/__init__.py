"""The routed experts on a GPU: Triton kernels on the expert record, with the CPU's bits.

    experts = GpuExperts(shape, slots, "int8")
    experts.outputs(x, slot_ids, outputs)     # what each (token, slot) says; launches only
    combine(outputs, ids, weights)            # the sum in slot order

On CPU tensors the same calls run a plain torch statement of the arithmetic, so that all that is
built on them runs without a GPU.
"""

from hybrid.gpu_experts.experts import GpuExperts
from hybrid.gpu_experts.ops import combine

__all__ = ["GpuExperts", "combine"]
