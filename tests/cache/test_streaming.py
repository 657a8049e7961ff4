"""Streamed prompts say what the CPU says, whoever computes what and however long it takes."""

import threading
import time

import numpy as np
import pytest
import torch

from hybrid.accelerator.host import HostAccelerator
from hybrid.cache.host_slots import HostSlots
from hybrid.cache.ring import Ring
from hybrid.cache.split import LEAST_TOKENS
from hybrid.errors import KernelError
from hybrid.gpu_experts import GpuExperts
from tests.cache.parts import PATIENCE, TWO_NODES
from tests.cache.streamed import Layers, forced, prompt, run, said_by_cpu, streamer

SPLITS = {
    "all": lambda may, tokens: may[np.argsort(-tokens[may])],
    "none": lambda may, tokens: [],
    "random": lambda may, tokens: np.random.default_rng(0).permutation(may)[: len(may) // 2],
    "one": lambda may, tokens: may[:1],
}
SLOW = 0.01  # GB/s: a millisecond a record


@pytest.fixture(scope="module")
def layers():
    return Layers()


@pytest.fixture
def made():
    """Streamers that the test makes; closed afterwards, whatever happened."""
    streams = []

    def make(*arguments, **options):
        streams.append(streamer(*arguments, **options))
        return streams[-1]

    yield make
    for stream in streams:
        stream.close()
        for lane in stream.lanes:
            lane.ring.unit.close()


def check(stream, layers, layer, routing, after=None):
    """Run a layer and compare; who was streamed."""
    rows, taken = run(stream, layers, layer, routing, after)
    assert np.array_equal(rows, said_by_cpu(layers.kernels[layer], routing))
    assert len(set(taken.tolist())) == len(taken)
    return taken


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize(("link", "locked"), [(None, False), (None, True), (SLOW, False)])
def test_every_split_has_the_same_bits(layers, made, name, link, locked):
    stream = made(layers, [HostAccelerator(link_gb_s=link)], forced(SPLITS[name]), locked=locked)
    for layer, tokens in ((0, 20), (1, LEAST_TOKENS), (0, 20)):
        taken = check(stream, layers, layer, prompt(tokens, layer))
        assert bool(len(taken)) is (name != "none")


@pytest.mark.parametrize(("records", "together"), [(2, 4), (3, 2), (1, 1), (32, 8)])
def test_any_ring_will_do(layers, made, records, together):
    stream = made(layers, choose=forced(SPLITS["all"]), records=records, together=together)
    for layer in (0, 1, 0):
        check(stream, layers, layer, prompt(24, layer + 7))


@pytest.mark.parametrize("locked", [False, True])
def test_records_in_pieces_on_several_nodes(made, locked):
    layers = Layers(1, shares=TWO_NODES)
    assert len(layers.slots.shards) == 2
    stream = made(layers, choose=forced(SPLITS["all"]), locked=locked)
    rows, _ = run(stream, Layers(1), 0, prompt(24))  # the same experts, whole
    routing = prompt(24)
    taken = stream.begin(
        layers.maps[0], routing, np.arange(24, dtype=np.int32), torch.from_numpy(rows * 0)
    )
    stream.collect()
    assert len(taken)
    again, _ = run(stream, layers, 0, routing)
    assert np.array_equal(again, said_by_cpu(Layers(1).kernels[0], routing))


@pytest.mark.parametrize("links", [(None, None), (SLOW, None, SLOW)])
@pytest.mark.parametrize("name", ["all", "random", "one"])
def test_several_cards_share_the_work(layers, made, links, name):
    units = [HostAccelerator(f"card{at}", link) for at, link in enumerate(links)]
    stream = made(layers, units, forced(SPLITS[name]))
    for layer, tokens in ((0, 40), (1, 20), (2, 33)):
        check(stream, layers, layer, prompt(tokens, layer + 20))


@pytest.mark.parametrize("cards", [1, 3])
def test_x_that_is_on_the_first_card_is_not_read_from_the_host(layers, made, cards):
    stream = made(layers, [HostAccelerator() for _ in range(cards)], forced(SPLITS["all"]))
    routing, everybody = prompt(40), np.arange(24, dtype=np.int32)
    want = said_by_cpu(layers.kernels[0], routing)
    rows = torch.zeros(want.shape)
    x = torch.from_numpy(routing.hidden.copy())
    routing.hidden[:] = np.nan
    stream.begin(layers.maps[0], routing, everybody, rows, x)
    stream.collect()
    assert np.array_equal(rows.numpy(), want)


def test_who_is_on_the_device_or_in_the_file_is_left_alone(made):
    layers = Layers(1)
    stream, own = made(layers, choose=forced(SPLITS["all"])), layers.maps[0]
    own.vram[3] = 0
    routing = prompt(40, 5)
    in_ram = np.array([e for e in range(24) if e not in (3, 7)], np.int32)  # 7 is being read
    rows = torch.full((routing.expert_ids.size, 96), 7.0)
    taken = stream.begin(own, routing, in_ram, rows)
    stream.collect()
    assert not {3, 7} & set(taken.tolist())
    rest = ~np.isin(routing.expert_ids, taken).reshape(-1)
    assert (rows.numpy()[rest] == 7.0).all()


def test_a_short_prompt_is_the_cpus(layers, made):
    stream = made(layers, choose=forced(SPLITS["all"]))
    assert len(check(stream, layers, 0, prompt(LEAST_TOKENS - 1))) == 0


def test_the_split_itself_shares_and_learns_its_pace(layers, made):
    stream = made(layers, [HostAccelerator(link_gb_s=SLOW)])
    for seed in range(6):
        check(stream, layers, 0, prompt(64, seed))
    assert stream.streamed
    assert stream.pace.device != 1.0


def test_the_next_layer_begins_early(layers, made):
    stream = made(layers, choose=forced(SPLITS["all"]))
    routings = [prompt(40, layer) for layer in range(3)]
    for _ in range(3):  # passes
        for layer, routing in enumerate(routings):
            after = layers.maps[layer + 1] if layer < 2 else None
            check(stream, layers, layer, routing, after)
            if after is not None and stream._early is not None:
                assert after.pinned
    assert stream.early > 8
    assert stream.wasted == 0
    assert not any(own.pinned for own in layers.maps)


def test_a_layer_that_reads_from_the_file_is_not_guessed(made):
    layers = Layers()
    layers.maps[1].ram[5] = -1
    stream = made(layers, choose=forced(SPLITS["all"]))
    for _ in range(3):
        for layer in (0, 1):
            run(stream, layers, layer, prompt(40, experts=5), layers.maps[1])
            assert stream._early is None
    assert stream.early == 0


def test_wrong_guesses_cost_no_bits_and_end(layers, made):
    stream = made(layers, choose=forced(SPLITS["all"]))
    for turn in range(12):
        routing = prompt(20, turn, experts=12)
        kept = routing.expert_ids >= 0
        routing.expert_ids[kept] = 2 * routing.expert_ids[kept] + turn % 2  # never the same twice
        for layer in (0, 1):
            after = layers.maps[1] if layer == 0 else None
            check(stream, layers, layer, routing, after)
    assert 0 < stream.wasted == stream.early
    assert stream.early < 11 * 4  # not every time: who was wrong is left alone
    assert not any(own.pinned for own in layers.maps)


def test_a_copy_that_fails_is_told_and_forgotten(layers, made, monkeypatch):
    stream = made(layers, choose=forced(SPLITS["all"]))
    real = HostSlots.copy_out

    def broken(self, slot, record):
        if slot == int(layers.maps[0].ram[2]):
            raise OSError("this page is broken")
        real(self, slot, record)

    with monkeypatch.context() as patch:
        patch.setattr(HostSlots, "copy_out", broken)
        with pytest.raises(OSError, match="this page is broken"):
            run(stream, layers, 0, prompt(40))
    stream.settle()
    check(stream, layers, 0, prompt(40))


def test_a_launch_that_fails_is_told_and_forgotten(layers, made, monkeypatch):
    stream = made(layers, choose=forced(SPLITS["all"]))
    with monkeypatch.context() as patch:
        patch.setattr(GpuExperts, "outputs", lambda *_: (_ for _ in ()).throw(ValueError("no")))
        with pytest.raises(ValueError, match="no"):
            run(stream, layers, 0, prompt(40))
    stream.settle()
    check(stream, layers, 0, prompt(40))


@pytest.mark.parametrize("cards", [1, 2])
@pytest.mark.parametrize("wait_s", [0.0, 0.01, 0.05])
def test_a_step_that_is_broken_off_leaves_nothing(layers, made, cards, wait_s):
    units = [HostAccelerator(f"card{at}", 0.001) for at in range(cards)]  # 10 ms a record
    stream = made(layers, units, forced(SPLITS["all"]))
    own, routing = layers.maps[0], prompt(40)
    rows = torch.zeros((routing.expert_ids.size, 96))
    stream.begin(own, routing, np.arange(24, dtype=np.int32), rows, after=layers.maps[1])
    time.sleep(wait_s)
    stream.settle()
    before = rows.clone()
    for each in layers.maps:
        each.mend()
    time.sleep(0.03)
    assert torch.equal(before, rows)  # nobody writes any more
    assert not stream.lanes[0]._feeder.busy
    check(stream, layers, 0, routing)


def test_closing_in_the_middle_ends_it(layers, made):
    stream = made(layers, [HostAccelerator(link_gb_s=0.001)], forced(SPLITS["all"]))
    routing = prompt(40)
    rows = torch.zeros((routing.expert_ids.size, 96))
    stream.begin(layers.maps[0], routing, np.arange(24, dtype=np.int32), rows)
    closer = threading.Thread(target=stream.close)
    closer.start()
    with pytest.raises(KernelError):
        stream.collect()
    closer.join(PATIENCE)
    assert not closer.is_alive()


def test_a_ring_that_did_not_wait_for_its_readers_would_be_seen(layers, made, monkeypatch):
    """The planted fault: records land in slots that a launch still reads from."""
    real = GpuExperts.outputs

    def slow(self, x, slots, rows):
        time.sleep(0.02)
        real(self, x, slots, rows)

    def hasty(self, host_slot, slot, epoch):
        self._lift.send(host_slot, self._slots[slot])

    monkeypatch.setattr(GpuExperts, "outputs", slow)
    routing = prompt(40)
    want = said_by_cpu(layers.kernels[0], routing)
    rows, _ = run(made(layers, choose=forced(SPLITS["all"]), records=2), layers, 0, routing)
    assert np.array_equal(rows, want)
    monkeypatch.setattr(Ring, "_fill", hasty)
    rows, _ = run(made(layers, choose=forced(SPLITS["all"]), records=2), layers, 0, routing)
    assert not np.array_equal(rows, want)
