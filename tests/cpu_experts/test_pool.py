"""The workers: start late, sleep when idle, survive fork, interrupt and the interpreter's end."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hybrid.cpu_experts import layer as layer_module
from hybrid.cpu_experts import pool as pool_module
from hybrid.cpu_experts.phase import SLEEPERS, WORKERS
from hybrid.cpu_experts.pool import Pool
from hybrid.errors import KernelError
from tests.cpu_experts.native_call import filled, random_batch, same_bits
from tests.reference import experts as reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def crowded(monkeypatch):
    """Even the smallest job goes to the workers."""
    monkeypatch.setattr(layer_module, "ALONE_BYTES", 0)


@pytest.fixture(scope="module")
def experts():
    rng = np.random.default_rng(0)
    return [reference.random_expert(rng, 128, 64) for _ in range(4)]


@pytest.fixture(scope="module")
def batch():
    return random_batch(np.random.default_rng(1), 6, 128, 4, 3)


@pytest.fixture(scope="module")
def want(experts, batch):
    return reference.layer_int8(experts, *batch)


def with_pool(experts, pool):
    layer = filled(experts, threads=pool.threads)
    layer._pool = pool
    return layer


def word(pool, offset):
    return int(pool._crew.state.words(offset)[0])


def eventually(condition):
    deadline = time.perf_counter() + 10
    while not condition():
        assert time.perf_counter() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("futex", [True, False], ids=["futex", "nap"])
def test_workers_sleep_and_wake(experts, batch, want, futex):
    pool = Pool(3, futex=futex and pool_module.HAS_FUTEX)
    layer = with_pool(experts, pool)
    for pause in [0, 0, 0.002, 0, 0.01] * 8:
        assert same_bits(layer.forward(*batch), want)
        time.sleep(pause)
    eventually(lambda: word(pool, SLEEPERS) == word(pool, WORKERS) == 2)
    pool.close()


def test_threads_start_with_the_first_large_job(experts, batch, want, monkeypatch):
    monkeypatch.setattr(layer_module, "ALONE_BYTES", 1 << 40)
    pool = Pool(2)
    layer = with_pool(experts, pool)
    assert same_bits(layer.forward(*batch), want)
    assert not pool._crew.threads
    monkeypatch.setattr(layer_module, "ALONE_BYTES", 0)
    assert same_bits(layer.forward(*batch), want)
    assert len(pool._crew.threads) == 1
    pool.close()


def test_close_ends_the_threads_and_forward_starts_new_ones(experts, batch, want):
    pool = Pool(3)
    layer = with_pool(experts, pool)
    for _ in range(3):
        assert same_bits(layer.forward(*batch), want)
        threads = list(pool._crew.threads)
        pool.close()
        assert not any(thread.is_alive() for thread in threads)


def test_a_worker_too_many_leaves(experts, batch, want):
    """Its number would lie outside the scratch: it must not take part."""
    pool = Pool(2)
    layer = with_pool(experts, pool)
    layer.forward(*batch)
    extra = threading.Thread(target=pool_module._live, args=(pool._crew,), daemon=True)
    eventually(lambda: word(pool, WORKERS) == 1)
    extra.start()
    extra.join(timeout=10)
    assert not extra.is_alive()
    assert word(pool, WORKERS) == 1
    assert same_bits(layer.forward(*batch), want)
    pool.close()


def test_callers_in_many_threads(experts, batch, want):
    layers = [filled(experts, threads=threads) for threads in (2, 2, 3)]
    with ThreadPoolExecutor(6) as callers:
        results = callers.map(lambda i: layers[i % 3].forward(*batch), range(120))
        assert all(same_bits(result, want) for result in results)


def test_experts_are_set_from_many_threads(experts, batch, want):
    layer = layer_module.ExpertLayer(4, 128, 64, threads=2)
    with ThreadPoolExecutor(4) as loaders:
        list(loaders.map(lambda e: layer.set_expert(e, **experts[e].tensors), range(4)))
    assert same_bits(layer.forward(*batch), want)


def test_a_thread_that_cannot_start_is_an_error(experts, batch, want, monkeypatch):
    pool = Pool(3)
    layer = with_pool(experts, pool)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(KernelError, match=r"use threads=1$"):
            layer.forward(*batch)
    assert same_bits(layer.forward(*batch), want)
    pool.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_start_is_made_up_for(experts, batch, want, monkeypatch, moment):
    """An interrupt hits as a thread is started: two workers must not get one number."""
    pool = Pool(3)
    layer = with_pool(experts, pool)
    start = threading.Thread.start

    def interrupt(thread):
        if moment == "after":
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            layer.forward(*batch)
    for _ in range(20):
        assert same_bits(layer.forward(*batch), want)
    eventually(lambda: word(pool, WORKERS) == 2)
    pool.close()
    assert same_bits(layer.forward(*batch), want)
    pool.close()


def dying(error):
    """Compiled code that fails before it begins."""

    def boom(state, worker):
        raise error

    return lambda: boom


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("no room"), "MemoryError: no room"),
        (RuntimeError("at rest"), "RuntimeError: at rest"),
        (ValueError("surprise"), "its traceback was printed"),
    ],
)
def test_a_worker_that_dies_is_an_error(experts, batch, want, monkeypatch, error, words):
    """Told to the next call, in one line; the call after that has new workers."""
    pool = Pool(3)
    layer = with_pool(experts, pool)
    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "work_loop", dying(error))
        patch.setattr(threading, "excepthook", lambda _: None)
        assert same_bits(layer.forward(*batch), want)
        for thread in pool._crew.threads:
            thread.join(timeout=10)
    with pytest.raises(KernelError) as caught:
        layer.forward(*batch)
    assert str(caught.value) == (
        f"an expert thread ended ({words}); the next call starts new ones; "
        "if this happens again, use threads=1"
    )
    assert same_bits(layer.forward(*batch), want)
    eventually(lambda: word(pool, WORKERS) == 2)
    pool.close()


def test_one_of_two_workers_dies(experts, batch, want):
    """The living one is sent home too: the new ones have a state of their own."""
    pool = Pool(3)
    layer = with_pool(experts, pool)
    layer.forward(*batch)
    crew = pool._crew
    crew.ended.append("planted")
    with pytest.raises(KernelError, match="planted"):
        layer.forward(*batch)
    for thread in crew.threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert crew.ended == ["planted"]  # leaving when asked is no failure
    assert same_bits(layer.forward(*batch), want)
    pool.close()


# ---- what needs a process of its own

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from hybrid.cpu_experts import layer as layer_module
from hybrid.cpu_experts.phase import FIXED, PROCESS
from tests.cpu_experts.native_call import filled, random_batch, same_bits
from tests.reference import experts as reference
layer_module.ALONE_BYTES = 0
rng = np.random.default_rng(0)
experts = [reference.random_expert(rng, 128, 64) for _ in range(4)]
batch = random_batch(rng, 6, 128, 4, 3)
layer = filled(experts, threads=3)
want = layer.forward(*batch)
"""


def run(body):
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + body],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home())}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_forked_child_has_its_own_workers():
    """Also when the fork happens while another thread is inside a forward."""
    result = run("""
stop = threading.Event()
def busy():
    while not stop.is_set():
        layer.forward(*batch)
thread = threading.Thread(target=busy)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        right = same_bits(layer.forward(*batch), want)
        own = layer._pool._crew.state.words(FIXED)[PROCESS] == os.getpid()
        os._exit(0 if right and own else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
assert same_bits(layer.forward(*batch), want)
print("fine")
""")
    assert (result.returncode, result.stdout) == (0, "fine\n"), result.stderr


def test_an_interrupt_lets_the_workers_finish():
    result = run("""
main = threading.get_ident()
interrupts = 0
for _ in range(20):
    timer = threading.Timer(0.01, signal.pthread_kill, (main, signal.SIGINT))
    try:
        timer.start()
        while True:
            layer.forward(*batch)
    except KeyboardInterrupt:
        interrupts += 1
    timer.join()
    assert same_bits(layer.forward(*batch), want)
print(interrupts)
""")
    assert (result.returncode, result.stdout) == (0, "20\n"), result.stderr


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(3)",
        "raise SystemExit(3)",
        "threading.Thread(target=spin, daemon=True).start()",
    ],
)
def test_the_interpreter_ends_with_live_workers(end):
    """Asleep, or just awake, or with a daemon thread inside a forward: no crash, no hang."""
    result = run(f"""
def spin():
    while True:
        layer.forward(*batch)
{end}
""")
    assert result.returncode == (3 if "Exit" in end or "exit" in end else 0), result.stderr
    assert result.stderr == ""


@pytest.mark.skipif(not pool_module.HAS_FUTEX, reason="asks Linux whether a thread lives")
@pytest.mark.parametrize("futex", [True, False], ids=["futex", "nap"])
@pytest.mark.parametrize("threads", [2, 4])
def test_a_worker_that_dies_at_work_is_an_error(threads, futex):
    """The caller neither waits for ever nor returns what is not there; the next call works."""
    result = run(f"""
from hybrid.cpu_experts.pool import Pool
from hybrid.errors import KernelError
from tests.cpu_experts import pool_kernels
pool = Pool({threads}, futex={futex})
layer._pool = pool
for _ in range(2):
    try:
        pool_kernels.run(pool, 40, kernel=pool_kernels.die())
    except KernelError as error:
        print(error)
    rows = pool_kernels.run(pool, 40)
    assert (rows[:, 1] == 1).all()
    layer.threads = {threads}
    assert same_bits(layer.forward(*batch), want)
pool.close()
""")
    line = (
        "an expert thread died at work and the result is lost; the next call starts new ones; "
        "if this happens again, use threads=1\n"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, 2 * line, "")
