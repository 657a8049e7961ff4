"""The backbone on a machine without a GPU: compiled kernels over bf16 weights in host RAM."""

from hybrid.cpu_dense.backbone import CpuBackbone

__all__ = ["CpuBackbone"]
