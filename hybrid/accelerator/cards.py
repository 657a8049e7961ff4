"""The CUDA devices of this machine, in the order in which a model uses them.

The backbone goes to the one with most free memory; a plan counts the same way.
"""

import torch

from hybrid.accelerator.cuda import CudaAccelerator


def open_cards() -> list[CudaAccelerator]:
    """All that torch sees, the one with most free memory first."""
    found = [CudaAccelerator(index) for index in range(torch.cuda.device_count())]
    first = max(found, key=free_bytes, default=None)
    return sorted(found, key=lambda card: card is not first)


def free_bytes(card: CudaAccelerator) -> int:
    """What this process may still take on a card."""
    return int(torch.cuda.mem_get_info(card.device)[0])
