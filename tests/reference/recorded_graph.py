"""A CUDA graph as far as the host can have one: the operations of some work, and their operands.

As there, tensors are addresses and Python's numbers are what they were when it was recorded; who
asks for a value on the way is refused. Replaying computes from what now lies in the same memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

HOST_WAITS = (torch.ops.aten._local_scalar_dense.default,)


def is_composite(func: Any) -> bool:
    """Whether an operation is made of others; in inference mode those do not show by themselves."""
    key = "CompositeImplicitAutograd"
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return func.namespace == "aten" and has_kernel(func.name(), key)


class Recorder(TorchDispatchMode):
    """Runs operations and writes them down."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in HOST_WAITS:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        if is_composite(func):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.inference_mode()
    def replay(self) -> None:
        """Do the same operations on the same memory again."""
        made: dict[int, Tensor] = {}  # in this replay, by what stood there when it was recorded

        def now(then: Tensor) -> Tensor:
            return made.get(id(then), then)

        for func, args, kwargs, then in self.calls:
            args, kwargs = tree_map_only(Tensor, now, (args, kwargs))
            result = func(*args, **kwargs)
            for old, new in zip(tree_leaves(then), tree_leaves(result), strict=True):
                if isinstance(old, Tensor):
                    made[id(old)] = new


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """See hybrid.gpu_attention.graphs.Capture."""
    recorder = Recorder()
    with recorder:
        work()
    return recorder.replay
