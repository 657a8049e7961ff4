"""Every link of a card: to it, from it, both at once, a hand-off; and from card to card.

Timed through the accelerator that the runtime itself uses, from pinned memory.
"""

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor

from hybrid.accelerator.interface import Accelerator, Stream
from hybrid.doctor.check import Check, bad, good
from hybrid.hardware import Gpu
from hybrid.placement.cards import link_gb_s

COPY_BYTES = 256 << 20
HAND_OFF_BYTES = 64 << 10  # hidden state, ids and weights of a token
ROUNDS = 7
LEAST = 0.8  # of what pinned copies usually reach in such a slot
RESEAT = "see that the card sits in a slot with all its lanes, and that nothing else copies"


def check_link(card: Accelerator, gpu: Gpu | None, nbytes: int = COPY_BYTES) -> Check:
    """The link of one card, held against its slot where that is known."""
    up, down = card.stream("up"), card.stream("down")
    try:
        host, there = card.pinned(nbytes), _on(card, nbytes)
        back, other = card.pinned(nbytes), _on(card, nbytes)
        to_card = nbytes / 1e9 / _median(lambda: _copied([(up, there, host)]))
        from_card = nbytes / 1e9 / _median(lambda: _copied([(down, back, other)]))
        both = _median(lambda: _copied([(up, there, host), (down, back, other)]))
        small = [each.narrow(0, 0, min(nbytes, HAND_OFF_BYTES)) for each in (host, there, back)]
        hand_off = _median(lambda: _there_and_back(up, small))
    finally:
        up.close()
        down.close()
    found = (
        f"{to_card:.1f} GB/s to it, {from_card:.1f} from it, {2 * nbytes / 1e9 / both:.1f} both "
        f"ways at once; {1e6 * hand_off:.0f} us there and back"
    )
    name = f"link of {card.name}"
    if gpu and gpu.pcie_gen and gpu.pcie_width:
        usual = link_gb_s(gpu)
        slot = f"generation {gpu.pcie_gen} x{gpu.pcie_width}"
        if min(to_card, from_card) < LEAST * usual:
            return bad(name, f"{found}; {slot} reaches {usual:.0f}", RESEAT)
    return good(name, found)


def check_peers(cards: Sequence[Accelerator], nbytes: int = COPY_BYTES) -> list[Check]:
    """Copies from each card to the first, which is where sums are made."""
    checks = []
    for number, card in enumerate(cards[1:], start=1):
        stream = card.stream("peer")
        try:
            source, target = _on(card, nbytes), _on(cards[0], nbytes)
            seconds = _median(lambda: _copied([(stream, target, source)]))  # noqa: B023 (at once)
        finally:
            stream.close()
        found = f"{nbytes / 1e9 / seconds:.1f} GB/s"
        checks.append(good(f"card {number} to card 0", found))
    return checks


def _on(card: Accelerator, nbytes: int) -> Tensor:
    return torch.ones(nbytes, dtype=torch.uint8, device=card.device)


def _copied(copies: Sequence[tuple[Stream, Tensor, Tensor]]) -> float:
    """Seconds until all are done."""
    began = perf_counter()
    events = []
    for stream, target, source in copies:
        stream.copy(target, source)
        events.append(stream.record())
    for event in events:
        event.wait()
    return perf_counter() - began


def _there_and_back(stream: Stream, memory: Sequence[Tensor]) -> float:
    host, there, back = memory
    return _copied([(stream, there, host), (stream, back, there)])


def _median(sample: Callable[[], float]) -> float:
    sample()  # the first one touches the memory
    return statistics.median(sample() for _ in range(ROUNDS))
