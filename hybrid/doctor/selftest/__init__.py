"""Every kernel of the cards held against the CPU, every link timed: what nobody has shown here yet.

experts     the CPU's bits, in each activation, at a small size and at K2.5's
backbone    products, attention and router within what rounding explains
model       a small one from file to logits, with experts on no, some and all slots
links       to each card and back, both at once, a hand-off, card to card
"""

from collections.abc import Callable, Sequence

from hybrid.accelerator.interface import Accelerator
from hybrid.doctor.check import Check
from hybrid.doctor.selftest.backbone_kernels import check_backbone
from hybrid.doctor.selftest.experts import MODES, SMALL, TRUE, check_experts
from hybrid.doctor.selftest.links import check_link, check_peers
from hybrid.doctor.selftest.whole import check_whole
from hybrid.errors import PlacementError
from hybrid.hardware.devices import read_gpus

Sink = Callable[[str], None]
NO_CARD = (
    "there is no CUDA device to test; check nvidia-smi, and that torch is a CUDA build "
    "(kimi-local doctor says which it is)"
)


def examine_cards(sink: Sink = lambda _: None) -> list[Check]:
    """Test all cards that torch sees; `sink` is told of each step. PlacementError if none."""
    import torch

    if not torch.cuda.is_available():
        raise PlacementError(NO_CARD)
    from hybrid.accelerator.cards import open_cards

    cards: Sequence[Accelerator] = open_cards()
    try:
        return _examine(cards, sink)
    finally:
        for card in cards:
            card.close()


def _examine(cards: Sequence[Accelerator], sink: Sink) -> list[Check]:
    gpus, checks = read_gpus(), list[Check]()
    for card in cards:
        for mode in MODES:
            for case in (SMALL, TRUE):
                sink(f"{card.name}: experts {mode}, {case.name}")
                checks.append(check_experts(card.device, mode, case))
    sink(f"{cards[0].name}: backbone")
    checks += check_backbone(cards[0].device)
    sink("a small model")
    checks += check_whole(cards[0].device.type)
    for card in cards:
        sink(f"{card.name}: link")
        number = card.device.index or 0
        checks.append(check_link(card, gpus[number] if number < len(gpus) else None))
    return [*checks, *check_peers(cards)]
