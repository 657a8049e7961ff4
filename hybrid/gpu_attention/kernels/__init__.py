"""Triton kernels of a decode step; imported where there is a CUDA device, or in tests."""
