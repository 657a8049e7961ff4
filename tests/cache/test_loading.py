"""From a checkpoint to a cache: which source, what threads remain, and the same tokens."""

import gc
import logging
import threading
import time

import numpy as np
import pytest

from hybrid.cache import loading, warm_start
from hybrid.cache.file_source import FileSource
from hybrid.cache.prepare import prepare
from hybrid.cache.record_file import DEFAULT_NAME
from hybrid.cache.shard_source import ShardSource
from hybrid.cpu_experts import layer as layer_module
from hybrid.cpu_experts import pool as pool_module
from hybrid.cpu_experts.pool import Pool
from hybrid.cpu_experts.topology import Topology
from hybrid.errors import CheckpointError
from hybrid.tiny import TinyShape, write_tiny
from tests.cache import record_cases as cases
from tests.cache.tiered import answers, check_books, load, shake, tiers_of, write_model

IDS = list(range(300, 330))
BUDGETS = [(0, 0), (8, 24), (0, 30), (64, 0), (40, 4), (None, None)]


@pytest.fixture(autouse=True)
def no_earlier_run(monkeypatch):
    monkeypatch.setattr(warm_start, "recall", lambda *_: None)
    monkeypatch.setattr(warm_start, "keep", lambda *_: None)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("loading") / "model")


@pytest.fixture(scope="module")
def records(model_dir, tmp_path_factory):
    """A prepared file that is not in the model's directory."""
    path = tmp_path_factory.mktemp("records") / "x.records"
    prepare(model_dir, path)
    return path


@pytest.fixture(scope="module")
def wanted(model_dir):
    with load(model_dir, None, None) as engine:
        return answers(engine, IDS, tokens=8)


@pytest.fixture
def lying_there(model_dir, records):
    """A stale file where `prepare` puts it."""
    path = model_dir / DEFAULT_NAME
    content = bytearray(records.read_bytes())
    content[80:96] = bytes(16)  # the fingerprint
    path.write_bytes(content)
    yield path
    path.unlink()


def source_of(model_dir, records=None):
    with cases.opened(model_dir) as (text, checkpoint):
        source = loading.open_source(model_dir, text, checkpoint, records)
        source.close()
    return type(source)


def test_without_a_file_the_shards_are_read(model_dir):
    assert source_of(model_dir) is ShardSource


def test_a_file_where_prepare_puts_it_is_found(model_dir, records):
    path = model_dir / DEFAULT_NAME
    path.write_bytes(records.read_bytes())
    try:
        assert source_of(model_dir) is FileSource
    finally:
        path.unlink()


def test_a_stale_file_that_merely_lies_there_is_left_alone(model_dir, lying_there, caplog):
    with caplog.at_level(logging.WARNING):
        assert source_of(model_dir) is ShardSource
    (record,) = caplog.records
    assert "reading the shards instead" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_stale_file_that_was_named_is_an_error(model_dir, lying_there, tmp_path):
    for path in (lying_there, tmp_path / "absent"):
        with pytest.raises(CheckpointError) as caught:
            load(model_dir, 8, 8, records=path)
        assert "\n" not in str(caught.value)
    assert not cache_threads()


@pytest.mark.parametrize(("vram", "ram"), BUDGETS)
def test_shards_and_a_prepared_file_give_the_same_tokens(
    vram, ram, model_dir, records, wanted, monkeypatch
):
    shake(monkeypatch, 1, most_s=0.0005)
    for options, kind in (({}, "shards"), ({"records": records}, "records")):
        with load(model_dir, vram, ram, **options) as engine:
            assert answers(engine, IDS, tokens=8) == wanted
            check_books(tiers_of(engine))
            assert engine.stats()["tiers"]["nvme"]["source"] in (kind, None)


def test_a_prepared_file_with_wrong_bytes_is_an_error_not_other_tokens(
    model_dir, records, tmp_path
):
    """The planted fault: what shows that the file was read at all."""
    content = bytearray(records.read_bytes())
    content[-4096:] = bytes(4096)
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(content)
    with pytest.raises(CheckpointError), load(model_dir, 8, 56, records=spoilt) as engine:
        answers(engine, IDS)
    assert not cache_threads()


def test_progress_reaches_the_total(model_dir):
    seen = []
    with load(model_dir, 8, 24, progress=seen.append):
        pass
    steps = [(step.done, step.total) for step in seen if step.phase == "experts"]
    assert steps[0][0] == 0
    assert steps[-1] == (28 * 3456, 28 * 3456)  # 8, and 24 but for four to read into


def cache_threads():
    names = ("filling", "records", "promotions", "device")
    return [each.name for each in threading.enumerate() if each.name.startswith(names)]


@pytest.mark.parametrize("records_done", [0, 5, 27])
def test_an_interrupt_while_loading_leaves_no_thread(model_dir, records_done):
    def sink(progress):
        if progress.phase == "experts" and progress.done >= records_done * 3456:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(model_dir, 8, 24, progress=sink)
    assert not cache_threads()


def test_an_engine_that_is_forgotten_leaves_no_thread(model_dir):
    engine = load(model_dir, 8, 24)
    answers(engine, IDS)
    del engine
    deadline = time.perf_counter() + 30
    while cache_threads():
        gc.collect()
        assert time.perf_counter() < deadline
        time.sleep(0.01)


def test_an_engine_over_two_nodes_says_the_same(tmp_path, monkeypatch):
    """On a made-up machine; experts of two groups of rows, so that they can be shared out."""
    shape = TinyShape(
        num_hidden_layers=4, n_routed_experts=16, num_experts_per_tok=4, moe_intermediate_size=64
    )
    model_dir = write_tiny(tmp_path / "model", shape, seed=4, vision=False)
    with load(model_dir, None, None) as engine:
        want, logits = answers(engine, IDS), engine.logits(IDS)
    monkeypatch.setattr(pool_module, "pin", lambda core: None)
    pool = Pool(2, topology=Topology(((0,), (1,)), (0, 1)))
    monkeypatch.setattr(loading, "shared_pool", lambda threads: pool)
    monkeypatch.setattr(layer_module, "shared_pool", lambda threads: pool)
    shake(monkeypatch, 2, most_s=0.0005)
    with load(model_dir, 10, 30, cache_policy="lru") as engine:
        tiers = tiers_of(engine)
        assert len(tiers.slots.shards) == 2
        assert answers(engine, IDS) == want
        check_books(tiers)
        stats = tiers.stats()
        assert stats["vram"]["promotions"] > 10
        assert stats["nvme"]["expert_reads"] > 10
        np.testing.assert_array_equal(engine.logits(IDS), logits)
        first = tiers.slots.shards[0].records
        first[:] = np.roll(first, 1, axis=0)  # the planted fault: one node's rows are others'
        assert (engine.logits(IDS) != logits).any()
    pool.close()
