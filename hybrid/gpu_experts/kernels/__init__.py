"""The Triton kernels; importing one of these modules needs Triton."""
