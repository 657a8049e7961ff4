"""Puts the expert cache of a model together and fills it.

    capacity -> slots of RAM and device -> maps, seeded by the last run -> records read -> Tiers

Records come from the prepared file where there is one that fits the checkpoint, else from the
shards. Where all of them have a place in memory, no file stays open.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybrid.cache import warm_start
from hybrid.cache.budgets import share
from hybrid.cache.capacity import Capacity
from hybrid.cache.counters import Counters
from hybrid.cache.dealing import shares
from hybrid.cache.device import Device, HostDevice
from hybrid.cache.file_source import FileSource
from hybrid.cache.filling import Filling
from hybrid.cache.fingerprint import contents_of
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.layer_map import LayerMap
from hybrid.cache.policy import Policy
from hybrid.cache.promotions import Promotions
from hybrid.cache.reader import Reader
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.cache.shard_source import ShardSource
from hybrid.cache.source import RecordSource
from hybrid.cache.split import Costs
from hybrid.cache.tiers import Tiers
from hybrid.checkpoint import Checkpoint
from hybrid.config import TextConfig
from hybrid.cpu_experts import ExpertLayer
from hybrid.cpu_experts.pool import shared_pool
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import CheckpointError
from hybrid.progress import ProgressSink

if TYPE_CHECKING:  # it brings torch, which a machine without a GPU need not wait for
    from hybrid.accelerator.interface import Accelerator
    from hybrid.cache.streaming import Streamer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How the experts are to be kept and computed; all resolved."""

    capacity: Capacity
    policy: Policy
    prefetch: bool
    warm_start: bool
    records: Path | None  # the prepared file; None: where `prepare` puts it, if it is there
    isa: str | None
    threads: int
    activation: str
    cards: "Sequence[Accelerator]" = ()  # the device tier's; none: it is made of RAM and threads
    card_memory: Sequence[int] = ()  # of each card, for experts: their slots are shared out by it
    streaming: Costs | None = None  # experts of prompts go to the cards, if that is faster


def load_tiers(
    model_dir: Path,
    text: TextConfig,
    checkpoint: Checkpoint,
    options: CacheOptions,
    sink: ProgressSink,
) -> Tiers:
    """Read as many experts as there is room for, and return what computes them."""
    source = open_source(model_dir, text, checkpoint, options.records)
    try:
        return _load(source, text, checkpoint, options, sink)
    except BaseException:
        source.close()
        raise


def open_source(
    model_dir: Path, text: TextConfig, checkpoint: Checkpoint, records: Path | None
) -> RecordSource:
    """The prepared file if there is one that fits, else the shards.

    A file that was named must fit; one that merely lies there and does not is left alone, and the
    log says so.
    """
    path = records or model_dir / DEFAULT_NAME
    if records is not None or path.exists():
        try:
            return FileSource(path, contents_of(model_dir, text, checkpoint))
        except CheckpointError as error:
            if records is not None:
                raise
            log.warning("%s; reading the shards instead", error)
    return ShardSource(model_dir, text, checkpoint)


def _load(
    source: RecordSource,
    text: TextConfig,
    checkpoint: Checkpoint,
    options: CacheOptions,
    sink: ProgressSink,
) -> Tiers:
    size, threads = options.capacity, options.threads
    shape = RecordShape.of(text)
    slots = HostSlots(shape, size.ram, shared_pool(threads).shares)
    maps = [_map(text, layer, options.policy) for layer in range(text.num_hidden_layers)]
    known = [own for own in maps if own is not None]
    key, scores = "", None
    if options.warm_start:
        key = warm_start.key_of(checkpoint)
        scores = warm_start.recall(key, len(known), text.n_routed_experts)
    _share_out(known, size, scores)
    layers = [None if own is None else _layer(own, slots, options) for own in maps]
    device = promotions = reader = None
    with ExitStack() as undo:
        if size.device or (options.cards and options.streaming):
            device = _device(maps, slots, options)
            undo.callback(device.close)
        if device is not None and size.device:
            keep_free = size.landing // 2 if size.from_file else 0
            promotions = Promotions(device, slots, size.from_file, keep_free)
            undo.callback(promotions.close)
        Filling(source, slots, device, promotions, sink).fill(known, threads)
        if size.from_file:
            reader = Reader(source, slots)
        else:
            source.close()
        undo.pop_all()
    counters = Counters(len(maps), shape.nbytes)
    return Tiers(layers, maps, slots, counters, reader, device, promotions, options.prefetch, key)


def _map(text: TextConfig, layer: int, policy: Policy) -> LayerMap | None:
    return LayerMap(layer, text.n_routed_experts, policy) if text.is_moe(layer) else None


def _layer(own: LayerMap, slots: HostSlots, options: CacheOptions) -> ExpertLayer:
    return ExpertLayer(
        own.experts,
        slots.shape.hidden,
        slots.shape.intermediate,
        isa=options.isa,
        threads=options.threads,
        activation=options.activation,
        shards=slots.shards,
        where=own.ram,
    )


def _device(maps: Sequence[LayerMap | None], slots: HostSlots, options: CacheOptions) -> Device:
    """The cards there are, else threads of the CPU's."""
    where = [None if own is None else own.vram for own in maps]
    count, shape = options.capacity.device, slots.shape
    if not options.cards:
        return HostDevice(shape, count, where, options.isa, options.activation)
    from hybrid.cache.torch_device import TorchDevice

    counts = shares(count, options.card_memory)
    streamer = _streamer(slots, options) if options.streaming else None
    return TorchDevice(options.cards, counts, shape, where, options.activation, streamer)


def _streamer(slots: HostSlots, options: CacheOptions) -> "Streamer":
    """A ring on each card. Its link reads RAM itself where the system lets it."""
    from hybrid.cache.ring import Ring
    from hybrid.cache.streaming import Streamer

    assert options.streaming is not None
    locked = all(options.cards[0].lock(shard.records) for shard in slots.shards)
    rings = [Ring(unit, slots, options.activation, locked=locked) for unit in options.cards]
    return Streamer(rings, options.streaming)


def _share_out(maps: Sequence[LayerMap], size: Capacity, scores: warm_start.Scores | None) -> None:
    """Give each layer its slots in both memories."""
    if not maps:
        return
    experts = maps[0].experts
    worth = np.zeros((len(maps), experts)) if scores is None else scores
    device = share(size.device, worth, experts)
    ram = share(size.resident, worth, experts)
    for own, row, vram_slots, ram_slots in zip(maps, worth, device, ram, strict=True):
        own.vram_slots, own.ram_slots = int(vram_slots), int(ram_slots)
        if not size.from_file:  # all that is not on the device, whatever the share says
            own.ram_slots = experts - own.vram_slots
        if scores is not None:
            own.seed(row)
