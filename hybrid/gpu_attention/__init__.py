"""What runs on the torch device: attention, norms, router, dense weights, the latent KV cache.

"GPU" is a torch device; on a machine without one it is the CPU, which is a first-class machine.
"""
