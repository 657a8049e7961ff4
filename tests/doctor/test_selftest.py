"""The test of the GPUs, on cards made of threads: it passes, and planted faults are seen."""

from functools import partial

import pytest
import torch

from hybrid import loader
from hybrid.accelerator.host import HostAccelerator
from hybrid.doctor import selftest
from hybrid.doctor.selftest import backbone_kernels, experts, links, whole
from hybrid.errors import PlacementError
from hybrid.gpu_attention import ops, plain
from hybrid.gpu_attention.codes import Int8Weight
from hybrid.gpu_attention.layers import rms_norm
from hybrid.gpu_experts import GpuExperts
from hybrid.hardware import Gpu
from hybrid.tiny import TinyShape

CPU = torch.device("cpu")
MEGABYTE = 1 << 20
TINY = TinyShape(num_hidden_layers=3, n_routed_experts=6, num_experts_per_tok=6)
SMALL = backbone_kernels.Sizes(hidden=256, outputs=80, heads=4, rank=64, rope=16, nope=32)


def rounded(operation, *arguments, **changes):
    """An operation in float64, rounded once: what the best kernel would say."""
    wide = [a.double() if getattr(a, "dtype", None) == torch.bfloat16 else a for a in arguments]
    return operation(*wide, **changes).bfloat16()


def norm_linear(x, norm, eps, weight):
    hidden = rms_norm(x, norm, eps)
    if isinstance(weight, Int8Weight):
        return rounded(plain.linear, hidden, weight.codes, weight.scales, None, 0.0)
    return rounded(plain.linear, hidden, weight, None, None, 0.0)


@pytest.fixture
def good_kernels(monkeypatch):
    """torch's own bf16 products on a CPU round in the middle; kernels do not."""
    monkeypatch.setattr(ops, "norm_linear", norm_linear)
    monkeypatch.setattr(ops, "per_head", lambda x, weight: rounded(plain.per_head, x, weight, None))
    monkeypatch.setattr(ops, "mla_decode", partial(rounded, plain.mla_decode))


@pytest.mark.parametrize("mode", experts.MODES)
def test_expert_kernels(mode):
    assert experts.check_experts(CPU, mode, experts.SMALL).ok


@pytest.mark.slow
@pytest.mark.parametrize("mode", experts.MODES)
def test_expert_kernels_of_true_size(mode):
    assert experts.check_experts(CPU, mode, experts.TRUE).ok


def test_one_wrong_bit_of_an_expert_is_seen(monkeypatch):
    real = GpuExperts.outputs

    def off(self, x, ids, rows):
        real(self, x, ids, rows)
        rows.view(torch.int32)[3, 5] ^= 1

    monkeypatch.setattr(GpuExperts, "outputs", off)
    check = experts.check_experts(CPU, "int8", experts.SMALL)
    assert check.ok is False
    assert "1 of" in check.found
    assert check.fix


def test_backbone_kernels(good_kernels):
    checks = backbone_kernels.check_backbone(CPU, SMALL)
    assert [check.ok for check in checks] == [True] * 5


def scaled(x, by=1 + 2**-6):
    return (x.float() * by).to(x.dtype)


def one_more(start):
    return start + 1 if int(start) else start


FAULTS = {
    "norm_linear": lambda real: lambda x, norm, eps, w: scaled(real(x, norm, eps, w)),
    "per_head": lambda real: lambda x, w: real(x.flip(1), w),
    "mla_decode": lambda real: lambda q, p, t, s, *rest: real(q, p, t, one_more(s), *rest),
    "route": lambda real: lambda h, g, b, *rest: real(h, g, 2 * b, *rest),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_kernel_is_seen(name, good_kernels, monkeypatch):
    monkeypatch.setattr(ops, name, FAULTS[name](getattr(ops, name)))
    checks = backbone_kernels.check_backbone(CPU, SMALL)
    wrong = {check.name for check in checks if check.ok is False}
    names = {
        "norm_linear": {"products bf16", "products int8"},
        "per_head": {"products by head"},
        "mla_decode": {"attention"},
        "route": {"router"},
    }
    assert wrong == names[name]


@pytest.fixture
def cards(monkeypatch):
    made = (HostAccelerator("card 0"), HostAccelerator("card 1"))
    monkeypatch.setattr(loader, "_resolve_device", lambda device: device)
    monkeypatch.setattr(loader, "_cards", lambda: (made, [4 * 10**9] * 2))
    return made


def test_a_whole_model(cards):
    checks = whole.check_whole("cuda", TINY)
    assert [(check.name, check.ok) for check in checks] == [
        ("a model on the cards", True),
        ("experts anywhere", True),
    ]


def test_wrong_logits_and_bits_that_depend_on_the_place_are_seen(cards, monkeypatch):
    real = whole._said

    def off(model_dir, device, budget):
        logits = real(model_dir, device, budget)
        return logits * 1.02 if budget is None else logits + (budget > 0) * 1e-6

    monkeypatch.setattr(whole, "_said", off)
    assert [check.ok for check in whole.check_whole("cuda", TINY)] == [True, False]
    monkeypatch.setattr(whole, "_said", lambda *given: real(*given) * 1.03)
    assert [check.ok for check in whole.check_whole("cuda", TINY)] == [False, True]


def test_links(cards):
    slow = HostAccelerator("slow", link_gb_s=1.0)
    gpu = Gpu(pcie_gen=4, pcie_width=16)
    check = links.check_link(slow, gpu, 4 * MEGABYTE)
    assert check.ok is False
    assert "generation 4 x16" in check.found
    assert links.check_link(slow, None, 4 * MEGABYTE).ok
    assert links.check_link(cards[0], Gpu(pcie_gen=1, pcie_width=1), 4 * MEGABYTE).ok
    (peer,) = links.check_peers(cards, 4 * MEGABYTE)
    assert peer.name == "card 1 to card 0"
    slow.close()


def test_all_of_it_in_order(cards, monkeypatch, good_kernels):
    monkeypatch.setattr(selftest, "TRUE", experts.SMALL)
    monkeypatch.setattr(
        selftest, "check_backbone", partial(backbone_kernels.check_backbone, sizes=SMALL)
    )
    monkeypatch.setattr(selftest, "check_link", partial(links.check_link, nbytes=MEGABYTE))
    monkeypatch.setattr(selftest, "check_peers", partial(links.check_peers, nbytes=MEGABYTE))
    monkeypatch.setattr(selftest, "check_whole", lambda _: whole.check_whole("cuda", TINY))
    steps = []
    checks = selftest._examine(cards, steps.append)
    assert all(check.ok for check in checks)
    assert len({check.name for check in checks}) == 13
    assert steps[-1] == "card 1: link"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_one_line_says_so():
    with pytest.raises(PlacementError, match="no CUDA device"):
        selftest.examine_cards()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_cards_of_this_machine():
    assert [check for check in selftest.examine_cards() if check.ok is False] == []
