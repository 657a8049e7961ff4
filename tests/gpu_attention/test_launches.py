"""The kernels compiled for cards that are not here, at K2.5's sizes."""

import pytest

from hybrid.gpu_attention.kv_cache import PAGE
from hybrid.placement import builtin_config
from hybrid.triton_build import CAPABILITIES, CHIPS, build_launch

pytest.importorskip("triton")
from hybrid.gpu_attention.kernels.launches import CONTEXT, launches

pytestmark = pytest.mark.triton
TEXT = builtin_config().text
LAUNCHES = {launch.name: launch for launch in launches(TEXT)}
SHORT = ("attend_part 32K", "merge_parts", "q_kv_a bf16", "q_b int8", "router select")


def check(name, capability):
    built = build_launch(LAUNCHES[name], capability)
    assert built.spills == 0
    limit = min(chip.shared_bytes for chip in CHIPS if chip.capability == capability)
    assert built.shared_bytes <= limit
    if "int8" in name or "bf16" in name or "attend" in name:
        assert any(word in built.ptx for word in ("mma.sync", "wgmma", "tcgen05.mma"))
        assert "cp.async" in built.ptx  # loads run ahead of the products


@pytest.mark.parametrize("name", SHORT)
def test_compiles_for_the_card_with_least_shared_memory(name):
    check(name, 89)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", LAUNCHES)
def test_compiles_for_every_card(name, capability):
    check(name, capability)


def test_too_large_a_tile_is_seen(monkeypatch):
    from hybrid.gpu_attention.kernels import launching

    monkeypatch.setattr(launching, "ATTEND_ROWS", 64)
    monkeypatch.setitem(LAUNCHES, "attend_part 32K", launches(TEXT)[0])
    with pytest.raises(AssertionError):
        check("attend_part 32K", 89)


def test_bytes_are_those_of_the_weights():
    """Weights and latents of one token: 21.1 GB in bf16 (docs/design.md) without the router."""
    layers, moe = TEXT.num_hidden_layers, TEXT.num_hidden_layers - TEXT.first_k_dense_replace
    times = {"dense": layers - moe, "shared": moe, "head": 1, "router": moe}

    def total(kind):
        names = [name for name in LAUNCHES if name.endswith(kind)]
        return sum(LAUNCHES[n].bytes * times.get(n.split()[0], layers) for n in names)

    assert total("bf16") == pytest.approx(21.1e9 - 0.33e9, rel=0.005)
    assert total("int8") / total("bf16") == pytest.approx((1 + 2 / 32) / 2, rel=0.002)
    latents = LAUNCHES["attend_part 32K"].bytes * layers
    assert CONTEXT * 70_272 < latents < CONTEXT * 70_272 * 1.3
    assert CONTEXT % PAGE == 0
