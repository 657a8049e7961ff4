"""Peers in processes: asked, suspended, ended, and refused when they are wrong or missing."""

import json

import numpy as np
import peer
import psutil
import pytest
import rounds
from peer import PEERS, Peer, PeerError, PeerProcess
from synthetic import Routing

from tests.contracts.files import ROOT


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/bench")  # a spawned process gets this path too
    monkeypatch.setitem(PEERS, "fake", Peer("json", "numpy and more", "fake_peer", 1.0))
    process = PeerProcess("fake", experts=10, threads=2, max_tokens=4)
    yield process
    process.close()
    assert not process._process.is_alive()


def routing(tokens):
    return Routing(np.zeros((tokens, 8), np.int32), np.full((tokens, 8), 1 / 8, np.float32))


def test_a_peer_computes_and_rests_in_between(fake, capfd):
    fake.wait_ready()
    assert fake.isa == "fake"
    assert fake.version == np.__version__
    state = psutil.Process(fake._process.pid)
    assert state.status() == psutil.STATUS_STOPPED
    fake.resume()
    x = np.ones((2, 4), np.float32)
    seconds, out = fake.step(x, routing(2), output=True)
    assert 0 <= seconds < 1
    assert (out == 16 * 2).all()
    assert fake.step(x, routing(2))[1] is None
    fake.suspend()
    assert state.status() == psutil.STATUS_STOPPED
    assert capfd.readouterr().out == ""


def test_a_peer_that_ends_is_named_with_its_last_words(fake):
    fake.wait_ready()
    fake.resume()
    with pytest.raises(PeerError, match="fake ended with exit code 7: three tokens are too many"):
        fake.step(np.ones((3, 4), np.float32), routing(3))


def test_a_peer_that_was_killed_is_named(fake):
    fake.wait_ready()
    fake._process.kill()
    fake._process.join()
    fake.resume()
    with pytest.raises(PeerError, match="fake ended with exit code -9"):
        fake.step(np.ones((1, 4), np.float32), routing(1))
    fake.suspend()


def test_a_missing_peer_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(PEERS, "none", Peer("no_such_package", "it", "none", 1.0))
    with pytest.raises(PeerError) as seen:
        peer.require("none")
    assert "no module no_such_package" in str(seen.value)
    assert "pip install it, or drop --peer" in str(seen.value)
    assert "\n" not in str(seen.value)


def test_an_installed_peer_is_accepted(monkeypatch):
    monkeypatch.setitem(PEERS, "json", Peer(json.__name__, "json", "", 1.0))
    assert peer.require("json").package == "json"


class Answer:
    """An engine that gives a fixed output."""

    engine = "answer"

    def __init__(self, out):
        self.out = out

    def step(self, x, routing, output=False):
        return 0.1, self.out if output else None

    def resume(self):
        pass

    suspend = resume


@pytest.mark.parametrize(("wrong", "refused"), [(0.0, False), (0.02, False), (0.05, True)])
def test_what_computes_something_else_is_not_timed(wrong, refused):
    want = np.random.default_rng(0).standard_normal((4, 7168)).astype(np.float32)
    other = np.random.default_rng(1).standard_normal(want.shape).astype(np.float32)
    got = want + np.float32(wrong) * other
    if refused:
        with pytest.raises(PeerError, match=r"answer differs from our output by 5\.0e-02"):
            rounds.check(Answer(want), Answer(got), experts=8)
    else:
        assert rounds.check(Answer(want), Answer(got), experts=8) == pytest.approx(wrong, rel=0.01)


def test_an_output_of_nans_is_refused():
    want = np.ones((4, 7168), np.float32)
    with pytest.raises(PeerError, match="nan"):
        rounds.check(Answer(want), Answer(want * np.nan), experts=8)
