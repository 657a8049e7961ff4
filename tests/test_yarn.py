"""Frequencies and scales against the printed vectors and against transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hybrid import yarn
from hybrid.config import ModelConfig

K25_INV_FREQ = [
    1.0,
    0.713111103,
    0.508527458,
    0.362636536,
    0.258600146,
    0.184410617,
    0.131505266,
    0.0937778577,
    0.0668740347,
    0.0437766574,
    0.0284279585,
    0.0182829555,
    0.01161916,
    0.00727411965,
    0.00446584867,
    0.0026702038,
    0.00153729669,
    0.000834655075,
    0.000408646069,
    0.000158374969,
    1.80702336e-05,
    1.28860838e-05,
    9.18920978e-06,
    6.55292706e-06,
    4.67296513e-06,
    3.33234311e-06,
    2.37633071e-06,
    1.69458781e-06,
    1.20842935e-06,
    8.61744411e-07,
    6.14519479e-07,
    4.38220638e-07,
]  # fmt: skip  spec §3.3


@pytest.fixture(scope="module")
def k25(request):
    data = request.path.parent / "data" / "kimi_k25_config.json"
    import json

    return ModelConfig.from_dict(json.loads(data.read_text())).text


def test_frequencies_of_k25(k25):
    # the vector was computed in fp32: two roundings of 2^-24
    np.testing.assert_allclose(yarn.inv_freq(k25), K25_INV_FREQ, rtol=2.5e-7)


def test_softmax_scale_of_k25(k25):
    assert yarn.softmax_scale(k25) == pytest.approx(0.1446796258, abs=1e-9)


def test_tables_of_k25_are_not_scaled(k25):
    cos, sin = yarn.cos_sin(k25, 262_000, 100)
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("beta_fast", [1.0, 32.0])
@pytest.mark.parametrize("mscale", [(1.0, 1.0), (0.707, 0.8), (1.0, 0.0)])
def test_frequencies_and_tables_equal_transformers(k25, beta_fast, mscale):
    from transformers import DeepseekV3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = replace(
        k25.rope_scaling, beta_fast=beta_fast, mscale=mscale[0], mscale_all_dim=mscale[1]
    )
    text = replace(k25, rope_scaling=scaling)
    parameters = {name: getattr(scaling, name) for name in type(scaling).__dataclass_fields__} | {
        "rope_type": "yarn",
        "rope_theta": text.rope_theta,
    }
    config = DeepseekV3Config(
        rope_parameters=parameters,
        qk_rope_head_dim=text.qk_rope_head_dim,
        max_position_embeddings=text.max_position_embeddings,
    )
    theirs, ratio = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    np.testing.assert_allclose(yarn.inv_freq(text), theirs.numpy(), rtol=5e-7)
    cos, sin = yarn.cos_sin(text, 0, 50)
    np.testing.assert_allclose(np.hypot(cos, sin), ratio, rtol=1e-6)


def test_without_scaling_frequencies_are_plain(k25):
    plain = replace(k25, rope_scaling=None)
    np.testing.assert_allclose(
        yarn.inv_freq(plain), 50000.0 ** (-np.arange(0, 64, 2) / 64), rtol=1e-7
    )
    assert yarn.softmax_scale(plain) == pytest.approx(192**-0.5)


def test_the_vector_sees_a_wrong_beta(k25):
    wrong = replace(k25, rope_scaling=replace(k25.rope_scaling, beta_fast=16.0))
    assert np.abs(yarn.inv_freq(wrong) / K25_INV_FREQ - 1).max() > 1e-3
