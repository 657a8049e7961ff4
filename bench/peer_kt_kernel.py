"""kt-kernel's RAWINT4 layer, driven through its extension as its own benchmarks do.

The public wrapper wants pinned memory, hence a GPU; below it lies a class that takes addresses. Its
AVX2 version computes from the caller's packed weights and copies only the scales, so every expert
gets packed weights of its own here, on huge pages as ours; other versions copy those too.
"""

import importlib
from typing import Any

import numpy as np
import synthetic
from synthetic import DISTINCT, GROUP, HIDDEN, INTERMEDIATE, TOP_K, Routing

from hybrid.cpu_experts import arena

kt_kernel: Any = importlib.import_module("kt_kernel")  # no dependency of ours
SELECT = "_select_rawint4_backend"  # kt's own choice, which the wrapper makes too
NAMES = "gate", "up", "down"


class Layer:
    """One layer of RAWINT4 experts; see `peer.Layer`."""

    def __init__(self, experts: int, threads: int, max_tokens: int) -> None:
        extension = kt_kernel.kt_kernel_ext
        self._tensors = [synthetic.expert(index) for index in range(DISTINCT)]
        choose = getattr(importlib.import_module("kt_kernel.utils.amx"), SELECT)
        backend = choose(GROUP)
        self.kernel = backend.__name__
        self._cpu = extension.CPUInfer(_pool(extension, threads))
        config = extension.moe.MOEConfig(experts, TOP_K, HIDDEN, INTERMEDIATE, 0)
        config.max_len, config.pool = max_tokens, self._cpu.backend_
        config.quant_config.bits, config.quant_config.group_size = 4, GROUP
        config.quant_config.zero_point = False
        self._set_weights(config, experts)
        self._moe = backend(config)
        order = np.arange(experts, dtype=np.int64)
        self._cpu.submit(self._moe.load_weights_task(order.ctypes.data))
        self._cpu.sync()

    def _set_weights(self, config: Any, experts: int) -> None:
        """Addresses of each expert's weights; the memory must outlive the layer."""
        nbytes = self._tensors[0]["gate"].packed.nbytes  # of each of the three matrices
        self._packed = arena.allocate(3 * experts * nbytes).reshape(3, experts, nbytes)
        for part, name in enumerate(NAMES):
            for e in range(experts):
                self._packed[part, e] = (
                    self._tensors[e % DISTINCT][name].packed.view(np.uint8).ravel()
                )
            weights = [self._packed[part, e].ctypes.data for e in range(experts)]
            scales = [self._tensors[e % DISTINCT][name].scale.ctypes.data for e in range(experts)]
            setattr(config, f"{name}_projs", [weights])
            setattr(config, f"{name}_scales", [scales])

    def prepare(self, x: np.ndarray, routing: Routing) -> None:
        """Activations as bf16, which they are exact in; ids as int64."""
        self._count = np.array([len(x)], np.int32)
        self._x = (x.view(np.uint32) >> 16).astype(np.uint16)  # [tokens, hidden]
        self._ids, self._weights = routing.ids.astype(np.int64), routing.weights
        self._y = np.zeros_like(self._x)
        arrays = self._ids, self._weights, self._x, self._y
        addresses = (array.ctypes.data for array in arrays)
        self._task = self._moe.forward_task(self._count.ctypes.data, TOP_K, *addresses, False)

    def run(self) -> None:
        """One step."""
        self._cpu.submit(self._task)
        self._cpu.sync()

    def output(self) -> np.ndarray:
        """The last step's bf16 result as float32 [tokens, hidden]."""
        return synthetic.bf16_to_float32(self._y)


def _pool(extension: Any, threads: int) -> Any:
    """One pool on one node."""
    config = extension.WorkerPoolConfig()
    config.subpool_count, config.subpool_numa_map = 1, [0]
    config.subpool_thread_count = [threads]
    return config
