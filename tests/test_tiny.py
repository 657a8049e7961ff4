"""The tiny checkpoint: the published format in every detail, and a model that is not flat."""

import base64
import errno
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.checkpoint import Checkpoint, expected_tensors
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, ConfigError
from hybrid.tiny import K25_LAYOUT, TinyShape, write_tiny
from hybrid.tiny.bpe import build_vocabulary
from hybrid.tiny.shape import config_json
from hybrid.tiny.weights import bf16
from tests.checkpoint_files import INDEX, SMALL, all_tensors, read_shard, shards
from tests.reference.float64_model import Float64Model, softmax

HERE = Path(__file__).parent
PUBLISHED = HERE / "data" / "kimi_k25_config.json"
REAL_TOKENIZER = HERE.parent.parent / "shared" / "data" / "kimi_tokenizer"
BASE = TinyShape().vocab_size - 256


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


def digests(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


# --- the format --------------------------------------------------------------------------------


def test_the_files_of_the_published_checkpoint(tiny):
    assert sorted(path.name for path in tiny.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "kimi-local-tiny.json",
        *(f"model-{number:05d}-of-000007.safetensors" for number in range(1, 8)),
        INDEX,
        "preprocessor_config.json",
        "tiktoken.model",
        "tokenizer_config.json",
    ]


def test_shards_divide_the_model_as_published(tiny):
    weight_map = json.loads((tiny / INDEX).read_text())["weight_map"]
    number = {name: int(file.split("-")[1]) for name, file in weight_map.items()}
    for name in weight_map:
        if ".layers." in name:
            assert number[name] == int(name.split(".")[3]) + 1
        elif name.startswith("language_model."):
            assert number[name] == 5  # embedding, final norm, head
        else:
            assert number[name] == {"mm_projector": 6, "vision_tower": 7}[name.split(".")[0]]


def test_index_and_headers_say_the_same(tiny):
    index = json.loads((tiny / INDEX).read_text())
    found, size = {}, 0
    for path in shards(tiny):
        header, data = read_shard(path)
        assert header.pop("__metadata__") == {"format": "pt"}
        assert path.stat().st_size % 4 == 0
        found |= dict.fromkeys(header, path.name)
        size += len(data)
    assert found == index["weight_map"]
    assert size == index["metadata"]["total_size"]


def test_exactly_the_expected_tensors_with_their_published_types(tiny):
    stored = all_tensors(tiny)
    config = ModelConfig.from_dir(tiny)
    expected = {}
    for want in expected_tensors(config):
        own = want.component in ("vision", "projector")
        expected["" if own else "language_model."] = 0
        expected[want.name if own else f"language_model.{want.name}"] = (
            want.dtypes[0],
            list(want.shape),
        )
    expected.pop("", None), expected.pop("language_model.", None)
    assert {name: (dtype, shape) for name, (dtype, shape, _) in stored.items()} == expected


def test_config_uses_only_published_keys_and_values(tiny):
    """Every key exists in K2.5's own file, with a value of the same type, and no key is made up."""
    ours, theirs = json.loads((tiny / "config.json").read_text()), json.loads(PUBLISHED.read_text())
    assert "quantization_config" not in ours
    text, published = ours["text_config"], theirs["text_config"]
    assert text["quantization_config"] == published["quantization_config"]
    for mine, other in ((ours, theirs), (text, published), *_pairs(ours, theirs)):
        assert mine.keys() <= other.keys()
        assert all(type(mine[key]) is type(other[key]) for key in mine)
    same = ("model_type", "architectures", "scoring_func", "topk_method", "routed_scaling_factor")
    assert all(text[key] == published[key] for key in same)


def _pairs(ours, theirs):
    yield ours["vision_config"], theirs["vision_config"]
    yield ours["text_config"]["rope_scaling"], theirs["text_config"]["rope_scaling"]


def test_flat_form(tmp_path):
    flat = write_tiny(tmp_path / "flat", SMALL, prefix=False, shards=2)
    values = json.loads((flat / "config.json").read_text())
    assert values["quantization_config"]["quant_method"] == "compressed-tensors"
    assert "text_config" not in values
    assert [path.name for path in shards(flat)] == [
        "model-00001-of-000002.safetensors",
        "model-00002-of-000002.safetensors",
    ]
    assert not (flat / "preprocessor_config.json").exists()
    assert ModelConfig.from_dir(flat).architecture == "DeepseekV3ForCausalLM"
    with pytest.raises(ConfigError, match="K2-Thinking has no vision"):
        write_tiny(tmp_path / "other", SMALL, prefix=False, vision=True)


def test_without_vision(tmp_path):
    directory = write_tiny(tmp_path / "text", SMALL, vision=False)
    config = ModelConfig.from_dir(directory)
    assert config.vision is None
    with Checkpoint.open(directory, config) as checkpoint:
        assert checkpoint.prefix == "language_model."
        assert checkpoint.ignored == ()
        assert not any(name.startswith(("vision", "mm_")) for name in checkpoint)


def test_k25_layout_has_all_layers_and_experts():
    raw = config_json(K25_LAYOUT, _ids(K25_LAYOUT), prefix=True, vision=True)
    text = ModelConfig.from_dict(raw).text
    published = ModelConfig.from_dict(json.loads(PUBLISHED.read_text())).text
    for name in (
        "num_hidden_layers",
        "n_routed_experts",
        "num_experts_per_tok",
        "first_k_dense_replace",
        "n_shared_experts",
    ):
        assert getattr(text, name) == getattr(published, name)


def _ids(shape):
    base = shape.vocab_size - 256
    return {"[BOS]": base, "[EOS]": base + 1, "[PAD]": base + 255, "<|media_pad|>": base + 21}


@pytest.mark.slow
def test_k25_layout_is_written_and_opened(tmp_path):
    directory = write_tiny(tmp_path / "deep", K25_LAYOUT)
    with Checkpoint.open(directory, ModelConfig.from_dir(directory)) as checkpoint:
        assert len(checkpoint.files) == 64
        assert sum(".experts." in name for name in checkpoint) == 60 * 384 * 9
    size = sum(path.stat().st_size for path in directory.iterdir())
    assert size < 100e6


# --- reproducibility ---------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    one = write_tiny(tmp_path / "one", SMALL, 3)
    two = write_tiny(tmp_path / "two", SMALL, 3)
    other = write_tiny(tmp_path / "other", SMALL, 4)
    assert digests(one) == digests(two)
    changed = {name for name, d in digests(one).items() if digests(other)[name] != d}
    assert changed == {path.name for path in shards(one)} | {"kimi-local-tiny.json"}


def test_bf16_rounds_half_to_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -2.5], np.float32)
    assert bf16(values).tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xC020]


# --- the tokenizer -----------------------------------------------------------------------------


def ranks(directory):
    lines = (directory / "tiktoken.model").read_bytes().splitlines()
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines}


def test_vocabulary_file(tiny):
    ranked = ranks(tiny)
    assert sorted(ranked.values()) == list(range(BASE))
    # published ranks of single bytes
    for byte, rank in ((0, 188), (10, 198), (32, 220), (33, 0), (48, 15), (65, 32), (255, 187)):
        assert ranked[bytes([byte])] == rank
    for token, rank in ranked.items():
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        mergeable = any(max(ranked.get(a, rank), ranked.get(b, rank)) < rank for a, b in halves)
        assert mergeable == (len(token) > 1), token


def test_special_slots_have_the_published_offsets(tiny):
    if not REAL_TOKENIZER.exists():
        pytest.skip("the published tokenizer is not beside the repository")
    ours = json.loads((tiny / "tokenizer_config.json").read_text())
    theirs = json.loads((REAL_TOKENIZER / "tokenizer_config.json").read_text())
    moved = {
        str(int(key) - 163584 + BASE): entry
        for key, entry in theirs["added_tokens_decoder"].items()
    }
    assert ours["added_tokens_decoder"] == moved
    for key in ("bos_token", "eos_token", "pad_token", "unk_token", "tokenizer_class"):
        assert ours[key] == theirs[key]


def test_the_runtime_reads_tokenizer_and_template(tiny):
    tokenizer = Tokenizer.from_dir(tiny)
    text = "Hello, world! 你好 def f(x): return x\n🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("The capital of France is Paris.")) < 12  # merges are of use
    assert tokenizer.vocab_size == TinyShape().vocab_size
    assert tokenizer.stop_ids == {BASE + 1, BASE + 2, BASE + 9}
    ChatTemplate.from_dir(tiny)
    ids = json.loads((tiny / "config.json").read_text())
    assert ids["media_placeholder_token_id"] == BASE + 21
    assert json.loads((tiny / "generation_config.json").read_text())["eos_token_id"] == BASE + 2


@pytest.mark.oracle
def test_tiktoken_reads_the_vocabulary(tiny):
    tiktoken = pytest.importorskip("tiktoken")
    theirs = tiktoken.Encoding(
        "tiny", pat_str=r" ?\S+|\s+", mergeable_ranks=ranks(tiny), special_tokens={}
    )
    text = "A router looks at the hidden state and gives every expert a score."
    assert theirs.decode(theirs.encode(text)) == text
    assert len(theirs.encode(text)) < len(text) / 2


def test_a_real_tokenizer_is_copied(tmp_path):
    if not REAL_TOKENIZER.exists():
        pytest.skip("the published tokenizer is not beside the repository")
    directory = write_tiny(tmp_path / "real", SMALL, tokenizer_dir=REAL_TOKENIZER)
    config = ModelConfig.from_dir(directory)
    assert config.text.vocab_size == 163840
    assert config.media_placeholder_token_id == 163605
    for name in ("tiktoken.model", "tokenizer_config.json"):
        assert (directory / name).read_bytes() == (REAL_TOKENIZER / name).read_bytes()
    with Checkpoint.open(directory, config) as checkpoint:
        assert checkpoint.info("lm_head.weight").shape == (163840, 64)


@pytest.mark.parametrize(("size", "fault"), [(511, "need 512"), (9000, "supports at most")])
def test_vocabularies_that_cannot_be(size, fault):
    with pytest.raises(ConfigError, match=fault):
        build_vocabulary(size - 256)


# --- the weights -------------------------------------------------------------------------------


def test_codes_use_all_nibbles_and_scales_are_sound(tiny):
    counts = np.zeros(16, np.int64)
    for name, (_, _, data) in all_tensors(tiny).items():
        if name.endswith("weight_packed") and "down" not in name:
            data = np.frombuffer(data, np.uint8)
            counts += np.bincount(np.concatenate([data & 15, data >> 4]), minlength=16)
        if name.endswith("weight_scale"):
            bits = np.frombuffer(data, np.uint16)
            assert bits.min() > 0
            assert bits.max() < 0x7F80  # finite, positive
    # uniform: each count is binomial with p = 1/16; six standard deviations
    n, p = counts.sum(), 1 / 16
    assert np.abs(counts - n * p).max() < 6 * np.sqrt(n * p * (1 - p))


@pytest.fixture(scope="module")
def probed(tiny):
    model = Float64Model(tiny)
    ids = np.random.default_rng(1).integers(0, BASE, 48)
    return model, model.logits(np.concatenate([ids, [BASE + 4, BASE + 17, BASE + 22]]))


BOUNDS = {  # what must lie within, in every layer
    "score spread": (1.5, 4.0),
    "largest share": (0.2, 0.8),
    "router spread": (1.0, 2.0),
    "moved by bias": (0.1, 0.6),
    "experts used": (0.8, 1.0),
    "attention": (0.2, 1.5),
    "dense": (0.2, 1.5),
    "shared": (0.1, 1.0),
    "routed": (0.2, 1.5),
    "stream": (0.7, 4.0),
}


def outside(probes):
    return {
        name
        for name, (low, high) in BOUNDS.items()
        if not all(low <= value <= high for value in probes[name])
    }


def test_nothing_vanishes_explodes_or_is_flat(probed):
    model, _ = probed
    assert outside(model.probes) == set()


@pytest.mark.parametrize(
    ("suffix", "factor", "noticed"),
    [
        ("q_b_proj.weight", 0.1, "score spread"),
        ("mlp.gate.weight", 0.1, "router spread"),
        ("o_proj.weight", 10, "attention"),
        ("down_proj.weight_scale", 0.1, "routed"),
    ],
)
def test_the_bounds_notice_a_flat_model(tiny, suffix, factor, noticed):
    """Planted faults: weights of a wrong size leave the bounds."""
    model = Float64Model(tiny)
    for name, (dtype, shape, data) in model.stored.items():
        if name.endswith(suffix):
            values = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            scaled = bf16(values.view(np.float32) * np.float32(factor))
            model.stored[name] = (dtype, shape, scaled.tobytes())
    model.logits(np.random.default_rng(1).integers(0, BASE, 48))
    assert noticed in outside(model.probes)


def test_the_answer_depends_on_the_input_and_comes_to_an_end(probed):
    _, logits = probed
    p = softmax(logits)
    readable = logits.mean(0) > -10
    assert 300 < readable.sum() < BASE
    assert logits[:, readable].std(0).mean() > 1.5  # of one token over the positions
    assert 0.05 < p.max(-1).mean() < 0.6
    ends = p[:, [BASE + 2, BASE + 23]].mean(0)  # <|im_end|>, </think>
    assert np.all((ends > 0.002) & (ends < 0.1))
    others = [slot for slot in range(256) if slot not in (2, 23)]
    assert p[:, [BASE + slot for slot in others]].max() < 1e-6
    assert p[:, ranks_of_stray_bytes()].max() < 1e-6


def ranks_of_stray_bytes():
    return [rank for rank, token in enumerate(build_vocabulary(BASE)) if token[0] >= 0x80][:64]


# --- all or nothing ----------------------------------------------------------------------------


def test_a_directory_that_is_not_ours_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty and not a tiny checkpoint"):
        write_tiny(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(CheckpointError, match="is not a directory"):
        write_tiny(tmp_path / "notes.txt", SMALL)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="is not a directory"):
        write_tiny(tmp_path / "link", SMALL)


def test_our_own_directory_is_replaced_and_an_empty_one_used(tmp_path):
    directory = tmp_path / "tiny"
    directory.mkdir()
    write_tiny(directory, SMALL, 1)
    before = digests(directory)
    write_tiny(directory, SMALL, 2)
    assert digests(directory) != before
    write_tiny(directory, SMALL, 1)
    assert digests(directory) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_writers_at_the_same_time_leave_one_whole_directory(tmp_path):
    directory = tmp_path / "tiny"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: write_tiny(directory, SMALL, seed), range(12)))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    seed = json.loads((directory / "kimi-local-tiny.json").read_text())["seed"]
    assert digests(directory) == digests(write_tiny(tmp_path / "alone", SMALL, seed))


def test_a_directory_that_another_writer_moves_aside_is_no_file(tmp_path, monkeypatch):
    """Between two looks at the place it may vanish: there is only one."""
    directory = tmp_path / "tiny"  # is there for `exists` and gone for `is_dir`
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "exists", lambda self, **_: True)
    monkeypatch.setattr(Path, "is_dir", lambda self: self != directory and is_dir(self))
    assert write_tiny(directory, SMALL) == directory


def test_no_room_leaves_nothing(tmp_path):
    """The kernel refuses the write: files may not grow past 64 KiB here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(CheckpointError) as caught:
            write_tiny(tmp_path / "deep" / "tiny", replace(SMALL, hidden_size=128))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "tiny: File too large; no part of it was left" in str(caught.value)
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_an_interrupted_write_leaves_the_old_one(tmp_path, monkeypatch, fault):
    directory = write_tiny(tmp_path / "tiny", SMALL, 1)
    before = digests(directory)

    def fail(*args):
        raise fault

    monkeypatch.setattr("hybrid.tiny.write_shards", fail)
    with pytest.raises(CheckpointError if isinstance(fault, OSError) else KeyboardInterrupt):
        write_tiny(directory, SMALL, 2)
    assert digests(directory) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_killed_writer_leaves_no_directory_of_that_name(tmp_path):
    code = (
        "import os, signal, sys, hybrid.tiny as tiny\n"
        "tiny._write_weights = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tiny.write_tiny(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "tiny")], cwd=HERE.parent)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tiny.")
    write_tiny(tmp_path / "tiny", SMALL)  # what was left is not in the way
    shutil.rmtree(left)


def test_shards_out_of_range(tmp_path):
    for count in (0, 6):
        with pytest.raises(ConfigError, match=f"shards is {count}; this shape divides into 1 to 5"):
            write_tiny(tmp_path / "tiny", SMALL, shards=count)
    assert list(tmp_path.iterdir()) == []
    write_tiny(tmp_path / "tiny", SMALL, shards=1)
    assert [path.name for path in shards(tmp_path / "tiny")] == [
        "model-00001-of-000001.safetensors"
    ]


def test_importing_the_writer_does_not_import_torch():
    code = "import sys, hybrid.tiny; print('torch' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
