"""What the plan says of a model that is loaded, and an answer beside it.

A plan is usually made before loading, from what is free. Here the records have their places
already, so the budgets are what they take, and nothing else is asked of the memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hybrid.cache.source import slot_bytes
from hybrid.cache.tiers import Tiers
from hybrid.config import ModelConfig
from hybrid.generation import Timing
from hybrid.last_run import Moment, Run, measured, planned
from hybrid.load_options import LoadOptions
from hybrid.loader import this_machine
from hybrid.placement import Plan, PlanOptions, plan


def expect(config: ModelConfig, options: LoadOptions, experts: Tiers) -> Plan | None:
    """The plan for a model whose experts lie where they lie; None if nothing can be said.

    Rates are this machine's where it was calibrated, else assumed (`plan.assumed`).
    """
    machine = this_machine(config, options)
    ram = replace(machine.ram, free_bytes=machine.ram.total_bytes or machine.ram.free_bytes)
    gpus = tuple(replace(gpu, free_bytes=gpu.vram_bytes) for gpu in machine.gpus)
    machine = replace(machine, ram=ram, gpus=gpus)
    slots = experts.slots
    on_cards = sum(own.vram_slots for own in experts.maps if own) * slots.shape.nbytes
    made = plan(
        config,
        machine,
        PlanOptions(
            context=options.kv_tokens or 1,
            vision=options.vision,
            device=options.device,
            backbone_weights=options.backbone_weights,
            ram_budget=slots.count * slot_bytes(slots.shape.nbytes),
            vram_budget=on_cards if options.device == "cuda" else options.vram_budget,
            threads=options.threads,
        ),
    )
    return made if made.fits else None


def compare(
    model: str,
    said: Plan,
    moments: Sequence[Moment],
    timing: Timing,
    uses: Mapping[str, int],
    tiers: Mapping[str, Any],
) -> Run:
    """One request, begun, answering and done at three `moments`, beside what was said of it."""
    begun, answering, done = moments
    computed = timing.prompt_tokens - timing.cached_tokens
    rates = {"experts_gb_s": tiers["ram"]["gb_per_s"], "disk_gb_s": tiers["nvme"]["gb_per_s"]}
    return Run(
        model=model,
        prompt_tokens=computed,
        decode_steps=timing.decode_steps,
        measured=measured(
            (begun, answering, done),
            (computed, timing.decode_steps),
            uses,
            {name: rate for name, rate in rates.items() if rate},
        ),
        predicted=planned(said, computed, timing.prompt_tokens),
    )
