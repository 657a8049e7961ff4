"""What the runtime's split of prompts counts with: the plan's own rates, for the cards in use."""

from collections.abc import Sequence

from hybrid.cache.split import Costs
from hybrid.config import ModelConfig
from hybrid.hardware import Hardware
from hybrid.placement.cards import together
from hybrid.placement.needs import needs
from hybrid.placement.rates import speeds
from hybrid.placement.speed import costs


def streaming_costs(
    config: ModelConfig,
    hardware: Hardware,
    *,
    cards: Sequence[int] | None = None,
    threads: int | None = None,
) -> Costs | None:
    """Costs of a routed expert on this CPU and on these cards of `hardware.gpus`, the first first.

    `cards` None: all of them. Measured rates where there are some, else assumed ones. None: there
    is no card, or nothing to stream.
    """
    model = needs(config, weights="bf16", vision=False)
    chosen = tuple(hardware.gpus if cards is None else (hardware.gpus[card] for card in cards))
    if not chosen or not model.records:
        return None
    rates = speeds(hardware, record_bytes=model.record_bytes, threads=threads)
    return costs(model, rates, together(chosen))
