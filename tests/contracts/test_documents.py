"""Numbers and names that docs/ repeats are those of the code and of the published config.json."""

import inspect
import json
import re

import numpy as np
import pytest

import hybrid
from cli.main import COMMANDS
from hybrid import yarn
from hybrid.config import ModelConfig
from hybrid.cpu_experts.record import RecordShape
from tests.contracts.files import ROOT

PUBLISHED = json.loads((ROOT / "tests/data/kimi_k25_config.json").read_text("utf-8"))
TEXT = ModelConfig.from_dict(PUBLISHED).text
MODEL = (ROOT / "docs/model.md").read_text("utf-8")
DESIGN = (ROOT / "docs/design.md").read_text("utf-8")


def section(text, number):
    """The part of a document under the heading with this number, up to the next heading."""
    return re.search(rf"^#+ {re.escape(number)}\.? .*\n((?:(?!#+ ).*\n)*)", text, re.M)[1]


def wrong_text_config(text):
    """Keys of §1.2's table whose value is not the published one."""
    rows = re.findall(r"(\w+) \| ([-\w.]+)(?= |$)", section(text, "1.2"))
    assert len(rows) > 20
    published = PUBLISHED["text_config"]
    return [pair for pair in rows if pair[0] in published and not same(*pair, published)]


def same(key, value, published):
    """Whether a value as printed is the published one: "1e-5" is 0.00001, "false" is False."""
    try:
        return float(value) == published[key]
    except ValueError:
        return value == str(published[key]).replace("False", "false").replace("True", "true")


def wrong_vision_config(text):
    """Keys of §1.4 whose value is not the published one."""
    pairs = re.findall(r"`(\w+) ([^`]+)`", section(text, "1.4").partition("transformers'")[0])
    assert len(pairs) > 12
    return [pair for pair in pairs if not same(*pair, PUBLISHED["vision_config"])]


def wrong_yarn(text):
    """Where §3.3's frequencies, printed to 9 digits, are not what the runtime computes."""
    block = re.search(r"(?:^    .*\n)+", section(text, "3.3"), re.M)[0]
    printed = np.array([float(number) for number in block.replace(",", " ").split()])
    computed = yarn.inv_freq(TEXT).astype(np.float64)
    if printed.shape != computed.shape:
        return [f"{len(printed)} frequencies, not {len(computed)}"]
    # The printed ones were computed in fp32 throughout: a power (1 ulp, so 2 roundings), division
    # by factor, ramp, its complement, two products and a sum are 8 roundings of 2^-24; printing 9
    # digits adds 5e-9.
    return printed[np.abs(printed / computed - 1) > 8 * 2**-24 + 5e-9].tolist()


def wrong_record(text):
    """Sizes of the record in §3 that are not the code's."""
    shape = RecordShape(TEXT.hidden_size, TEXT.moe_intermediate_size)
    sizes = (shape.gate_block_bytes, shape.down_block_bytes, shape.nbytes)
    return [f"{size:,} B" for size in sizes if f"{size:,} B" not in section(text, "3")]


def wrong_contract(text):
    """What §6 leaves out or adds: parameters of `load`, sampling settings, errors, commands."""
    contract = section(text, "6")
    load = set(re.findall(r"(\w+)=", re.search(r"hybrid\.load\(([^)]*)\)", contract)[1]))
    load |= {"model_dir"}
    sampling = set(re.findall(r"\w+", re.search(r"SamplingParams\(([^)…]+)\)", contract)[1]))
    event = set(re.findall(r"\w+", re.search(r"hybrid\.Event\(([^)]+)\)", contract)[1]))
    commands = set(re.search(r"`kimi-local ([^`]+)`", contract)[1].split(" | "))
    return sorted(
        (load ^ set(inspect.signature(hybrid.load).parameters))
        | (sampling ^ set(hybrid.SamplingParams.__dataclass_fields__))
        | (event ^ set(hybrid.Event.__dataclass_fields__))
        | (commands ^ set(COMMANDS))
    )


CHECKS = [
    (wrong_text_config, MODEL, "q_lora_rank | 1536", "q_lora_rank | 1537"),
    (wrong_text_config, MODEL, "rms_norm_eps | 1e-5", "rms_norm_eps | 1e-6"),
    (wrong_vision_config, MODEL, "vt_intermediate_size 4304", "vt_intermediate_size 4305"),
    (wrong_yarn, MODEL, "0.713111103", "0.713111903"),
    (wrong_record, DESIGN, "24,772,608 B", "24,772,632 B"),
    (wrong_contract, DESIGN, "kv_tokens=None", "kv_size=None"),
    (wrong_contract, DESIGN, "chat | demo", "chat | serve | demo"),
    (wrong_contract, DESIGN, "presence_penalty, ", ""),
]


@pytest.mark.parametrize(("check", "text"), {check: text for check, text, *_ in CHECKS}.items())
def test_the_documents_are_true(check, text):
    assert check(text) == []


@pytest.mark.parametrize(("check", "text", "right", "wrong"), CHECKS)
def test_a_planted_fault_is_seen(check, text, right, wrong):
    assert right in text
    assert check(text.replace(right, wrong))
