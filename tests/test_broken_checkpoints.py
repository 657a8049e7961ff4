"""Ways to break a model directory: each is one clear line and exit code 2, and nothing worse.

Every case goes the way a user goes: `kimi-local inspect DIR`.
"""

import itertools
import json
import os
import random
import resource
import shutil
import tracemalloc
from pathlib import Path

import pytest

from cli.main import run
from hybrid.chat.tokenizer import Tokenizer
from hybrid.checkpoint import Checkpoint
from hybrid.checkpoint.header import MAX_HEADER_BYTES
from hybrid.checkpoint.shards import MAX_INDEX_BYTES, MAX_SHARDS
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, KimiLocalError
from hybrid.tiny import write_tiny
from tests.checkpoint_files import (
    INDEX,
    SMALL,
    all_tensors,
    edit_json,
    read_shard,
    rewrite,
    shards,
    write_shard,
)

MAX_PEAK_BYTES = 48 << 20
EXPERT = "language_model.model.layers.1.mlp.experts.1.up_proj"
NORM = "language_model.model.norm.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("broken") / "tiny", SMALL)


@pytest.fixture
def model_dir(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def complaint(model_dir, capsys):
    """Run `inspect` and return what a user reads."""
    capsys.readouterr()
    tracemalloc.start()
    code = run(["inspect", str(model_dir)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("kimi-local: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.isascii()
    assert err[:-1].isprintable()
    assert len(err) < 400
    assert peak < MAX_PEAK_BYTES
    return err


def test_the_whole_directory_passes(model_dir, capsys):
    """Otherwise every refusal below would prove nothing."""
    assert run(["inspect", str(model_dir)]) == 0
    assert capsys.readouterr().err == ""


# --- config.json -------------------------------------------------------------------------------


def config(change):
    return lambda d: edit_json(d / "config.json", change)


def text(**changes):
    return config(lambda c: c["text_config"].update(changes))


def weights(**changes):
    def change(c):
        groups = c["text_config"]["quantization_config"]["config_groups"]
        groups["group_0"]["weights"].update(changes)

    return config(change)


CONFIG_FAULTS = {
    "absent": (lambda d: (d / "config.json").unlink(), "config.json: No such file"),
    "empty": (lambda d: (d / "config.json").write_bytes(b""), "config.json is not valid JSON"),
    "binary": (lambda d: (d / "config.json").write_bytes(b"\x80"), "config.json is not UTF-8"),
    "a list": (config(lambda c: [c]), "config.json holds a JSON list"),
    "foreign": (
        config(lambda c: c.update(architectures=["KimiK3ForConditionalGeneration"])),
        "KimiK3ForConditionalGeneration",
    ),
    "no text": (config(lambda c: c.pop("text_config") and None), "text_config is missing"),
    "fp8": (
        config(lambda c: c["text_config"].update(quantization_config={"quant_method": "fp8"})),
        "quant_method is 'fp8'",
    ),
    "groups of 128": (weights(group_size=128), "group_size is 128"),
    "8 bits": (weights(num_bits=8), "num_bits is 8"),
    "softmax": (text(scoring_func="softmax"), "scoring_func is 'softmax'"),
    "huge": (text(hidden_size=1 << 40), "hidden_size is 1099511627776"),
    "huge in sum": (text(n_routed_experts=4096, num_hidden_layers=1000), "n_routed_experts"),
    "other rank": (text(q_lora_rank=64), "model.layers.0.self_attn.q_a_proj.weight has the shape"),
    "more layers": (text(num_hidden_layers=3), "model.layers.2.self_attn.q_a_proj.weight is miss"),
    "more experts": (text(n_routed_experts=5), "mlp.gate.weight has the shape [3, 64]"),
    "1000 layers": (text(num_hidden_layers=1000, n_routed_experts=3), "model.layers.2."),
    "larger tower": (
        config(lambda c: c["vision_config"].update(vt_num_hidden_layers=2)),
        "vision_tower.encoder.blocks.1.norm0.weight is missing",
    ),
    "escape codes": (text(hidden_act="\x1b[2J\n\u202e"), "'\\x1b[2J\\n\\u202e'"),
    "fifo": (
        lambda d: ((d / "config.json").unlink(), os.mkfifo(d / "config.json")),
        "config.json is not a regular file",
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_config(model_dir, capsys, fault):
    damage, expected = CONFIG_FAULTS[fault]
    damage(model_dir)
    assert expected in complaint(model_dir, capsys)


# --- the index and the files it names ----------------------------------------------------------


def index(change):
    return lambda d: edit_json(d / INDEX, lambda i: change(i["weight_map"]))


def places(file):
    """The final norm is said to be in `file`."""
    return index(lambda weight_map: weight_map.update({NORM: file}))


def write_index(data):
    return lambda d: (d / INDEX).write_bytes(data)


def sparse(name, size):
    def damage(d):
        (d / name).touch()
        os.truncate(d / name, size)

    return damage


def replace_first_shard(make):
    def damage(d):
        path = shards(d)[0]
        path.rename(d.parent / "outside.safetensors")
        make(path)

    return damage


def many_shards(d):
    for number in range(MAX_SHARDS + 1):
        (d / f"x{number}.safetensors").touch()
    (d / INDEX).unlink()


def same_tensor_twice(d):
    shutil.copy(shards(d)[0], d / "model-00009-of-000009.safetensors")
    (d / INDEX).unlink()


FIRST = "model-00001-of-000005.safetensors"
FILE_FAULTS = {
    "index empty": (write_index(b""), f"{INDEX} is not valid JSON"),
    "index binary": (write_index(b"\xff\x00"), f"{INDEX} is not UTF-8"),
    "index a list": (write_index(b"[]"), f"{INDEX} holds a JSON list"),
    "index nested": (write_index(b'{"weight_map":' + b"[" * 200_000), "nested too deeply"),
    "index repeats": (
        write_index(b'{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}'),
        "the key 'a' appears twice",
    ),
    "index without map": (write_index(b"{}"), f"{INDEX}: weight_map is None"),
    "index map a list": (write_index(b'{"weight_map":[1]}'), f"{INDEX}: weight_map is [1]"),
    "index map empty": (write_index(b'{"weight_map":{}}'), f"{INDEX}: weight_map is {{}}"),
    "index too large": (sparse(INDEX, MAX_INDEX_BYTES + 1), "is larger than"),
    "index a directory": (
        lambda d: ((d / INDEX).unlink(), (d / INDEX).mkdir()),
        f"{INDEX} is not a regular file",
    ),
    "file a number": (places(7), f"tensor '{NORM}' is in 7"),
    "file of another kind": (places("model.bin"), "'model.bin'; expected a *.safetensors name"),
    "file in the parent": (places("../outside.safetensors"), "'../outside.safetensors' is not a"),
    "file elsewhere": (places("/etc/x.safetensors"), "'/etc/x.safetensors' is not a plain file"),
    "file in a folder": (places("a/b.safetensors"), "'a/b.safetensors' is not a plain file name"),
    "file with a NUL": (places("a\0.safetensors"), "'a\\x00.safetensors' is not a plain file"),
    "file with an escape": (places("\x1b[2J.safetensors"), "'\\x1b[2J.safetensors' is not a plain"),
    "file name too long": (places("a" * 300 + ".safetensors"), "is not a plain file name"),
    "file of a surrogate": (places("\ud800.safetensors"), "'\\ud800.safetensors' is not a plain"),
    "file absent": (places("model-00099-of-000099.safetensors"), "model-00099-of-000099.safetens"),
    "tensor elsewhere": (places(FIRST), f"'{NORM}' in {FIRST}, which does not hold it"),
    "tensor not in shard": (
        index(lambda weight_map: weight_map.update(ghost=FIRST)),
        f"'ghost' in {FIRST}, which does not hold it",
    ),
    "tensor not in index": (
        index(lambda weight_map: weight_map.pop(NORM) and None),
        f"holds tensor '{NORM}', absent from {INDEX}",
    ),
    "index dangling": (
        lambda d: ((d / INDEX).unlink(), (d / INDEX).symlink_to("nowhere")),
        f"{INDEX}: No such file",
    ),
    "shard gone": (replace_first_shard(lambda path: None), f"{FIRST}: No such file"),
    "shard a directory": (replace_first_shard(Path.mkdir), f"{FIRST} is not a regular file"),
    "shard a fifo": (replace_first_shard(os.mkfifo), f"{FIRST} is not a regular file"),
    "shard outside": (
        replace_first_shard(lambda path: path.symlink_to("../outside.safetensors")),
        f"{FIRST} is a symlink that leaves the model directory",
    ),
    "shard a device": (
        replace_first_shard(lambda path: path.symlink_to("/dev/zero")),
        f"{FIRST} is a symlink that leaves the model directory",
    ),
    "shard dangling": (
        replace_first_shard(lambda path: path.symlink_to("nowhere")),
        f"{FIRST}: No such file",
    ),
    "shard a loop": (
        replace_first_shard(lambda path: path.symlink_to(path.name)),
        f"{FIRST}: a symlink loop",
    ),
    "no shards": (
        lambda d: [path.unlink() for path in [*shards(d), d / INDEX]],
        "no model.safetensors.index.json and no *.safetensors file",
    ),
    "too many shards": (many_shards, f"at most {MAX_SHARDS} are read"),
    "a tensor twice": (same_tensor_twice, "is in two shards"),
    "one shard of many": (
        lambda d: [path.unlink() for path in [*shards(d)[1:], d / INDEX]],
        "is missing from the shards",
    ),
    "not a directory": (
        lambda d: (shutil.rmtree(d), d.write_text("model")),
        "is not a directory",
    ),
    "nothing there": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_files(model_dir, capsys, fault):
    damage, expected = FILE_FAULTS[fault]
    damage(model_dir)
    assert expected in complaint(model_dir, capsys)


def test_only_the_blobs_of_its_own_cache_are_outside(model_dir, tmp_path, capsys):
    """A folder called snapshots opens ../../blobs, and nothing else."""
    snapshot = tmp_path / "repo" / "snapshots" / "main"
    shutil.copytree(model_dir, snapshot)
    path = shards(snapshot)[0]
    path.unlink()
    path.symlink_to(shards(model_dir)[0])
    assert "leaves the model directory" in complaint(snapshot, capsys)


def test_more_shards_than_the_process_may_open(model_dir, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
    free = itertools.islice((n for n in itertools.count() if n not in in_use), 3, None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(free), hard))
    try:
        assert "Too many open files" in complaint(model_dir, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the header of a shard ---------------------------------------------------------------------


def raw(make):
    """Write bytes in place of the first shard, made from those that are there."""

    def damage(d):
        path = shards(d)[0]
        path.write_bytes(make(path.read_bytes()))

    return damage


def header(data, length=None):
    return lambda d: write_shard(shards(d)[0], data, b"", length)


def entry(**changes):
    """Change the entry of the tensor that lies last in the first shard."""

    def damage(d):
        path = shards(d)[0]
        head, data = read_shard(path)
        last = max((n for n in head if n != "__metadata__"), key=lambda n: _end(head[n]))
        head[last].update(changes)
        for gone in [key for key, value in changes.items() if value is ...]:
            del head[last][gone]
        write_shard(path, head, data)

    return damage


def _end(one):
    return one["data_offsets"][1]


def shift(by):
    """Move the last tensor of the first shard, and let the file fit."""

    def damage(d):
        path = shards(d)[0]
        head, data = read_shard(path)
        last = max((n for n in head if n != "__metadata__"), key=lambda n: _end(head[n]))
        head[last]["data_offsets"] = [offset + by for offset in head[last]["data_offsets"]]
        write_shard(path, head, data[: len(data) + by] + bytes(max(by, 0)))

    return damage


def repeated_name(d):
    path = shards(d)[0]
    head, data = read_shard(path)
    text = json.dumps(head)[:-1] + ', "__metadata__": {}}'
    write_shard(path, text.encode(), data)


HEADER_FAULTS = {
    "empty": (raw(lambda b: b""), "has 0 bytes; too short"),
    "7 bytes": (raw(lambda b: b[:7]), "has 7 bytes; too short"),
    "only a length": (raw(lambda b: b[:8]), "ends inside its header"),
    "length 2^60": (raw(lambda b: (1 << 60).to_bytes(8, "little") + b[8:]), "1152921504606846976"),
    "length 2^64-1": (
        raw(lambda b: b"\xff" * 8 + b[8:]),
        "claims a header of 18446744073709551615",
    ),
    "length past the file": (
        raw(lambda b: MAX_HEADER_BYTES.to_bytes(8, "little") + b[8:]),
        "ends inside its header",
    ),
    "length too short": (raw(lambda b: (9).to_bytes(8, "little") + b[8:]), "is not valid JSON"),
    "truncated data": (raw(lambda b: b[:-1]), "download it again"),
    "trailing bytes": (raw(lambda b: b + b"x"), "has 1 bytes after its last tensor"),
    "pickle": (raw(lambda b: b"\x80\x04\x95" + b), "is it a safetensors file?"),
    "html": (raw(lambda b: b"<!DOCTYPE html><html>404"), "is it a safetensors file?"),
    "not JSON": (header(b"{]"), "the header of model-00001-of-000005.safetensors is not valid"),
    "not UTF-8": (header(b'{"\xff":1}'), "is not UTF-8 (byte 2)"),
    "a list": (header(b"[]"), "holds a JSON list"),
    "nested": (header(b'{"a":' * 100_000), "nested too deeply"),
    "repeats": (repeated_name, "the key '__metadata__' appears twice"),
    "entry a number": (header({"a": 1}), "tensor 'a' needs exactly dtype, shape and data_offsets"),
    "no shape": (entry(shape=...), "needs exactly dtype, shape and data_offsets"),
    "more keys": (entry(code="x"), "needs exactly dtype, shape and data_offsets"),
    "dtype unknown": (entry(dtype="Q4_0"), "has the unknown dtype 'Q4_0'"),
    "dtype a list": (entry(dtype=[]), "has the unknown dtype []"),
    "shape negative": (entry(shape=[-1, -64]), "has the shape [-1, -64]"),
    "shape a float": (entry(shape=[64.0, 64]), "has the shape [64.0, 64]"),
    "shape a bool": (entry(shape=[True]), "has the shape [True]"),
    "shape a string": (entry(shape="64"), "has the shape '64'"),
    "shape 2^64": (entry(shape=[1 << 64]), "has the shape [18446744073709551616]"),
    "shape wraps to 0": (entry(shape=[1 << 32, 1 << 32]), "but spans"),
    "9 dimensions": (entry(shape=[1] * 9), "expected at most 8 counts"),
    "shape too small": (entry(shape=[1]), "but spans"),
    "offsets negative": (entry(data_offsets=[-2, 0]), "has the offsets [-2, 0]"),
    "offsets reversed": (entry(data_offsets=[8, 0]), "has the offsets [8, 0]"),
    "one offset": (entry(data_offsets=[0]), "has the offsets [0]"),
    "offsets a string": (entry(data_offsets="0"), "has the offsets '0'"),
    "offsets 2^64": (entry(data_offsets=[0, 1 << 64]), "has the offsets [0, 18446744073709551616]"),
    "overlap": (shift(-2), "overlaps the one before it"),
    "hole": (shift(2), "leaves a hole before it"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_headers(model_dir, capsys, fault):
    damage, expected = HEADER_FAULTS[fault]
    damage(model_dir)
    message = complaint(model_dir, capsys)
    assert expected in message
    assert FIRST in message


# --- tensors that are sound but not those of the model -----------------------------------------


def tensors(change):
    def damage(d):
        found = all_tensors(d)
        change(found)
        rewrite(d, found)

    return damage


def retype(name, dtype, factor=1):
    """Give a tensor another dtype, with `factor` times the bytes."""

    def change(found):
        _, shape, data = found[name]
        found[name] = (dtype, shape, data * factor)

    return tensors(change)


def reshape(name, shape):
    return tensors(lambda found: found.update({name: (found[name][0], shape, found[name][2])}))


def drop(name):
    return tensors(lambda found: found.pop(name))


def rename(old, new):
    def change(found):
        for name in [name for name in found if name.startswith(old)]:
            found[new + name.removeprefix(old)] = found.pop(name)

    return tensors(change)


def unpack_expert(found):
    found[f"{EXPERT}.weight"] = ("BF16", [1], b"\0\0")
    del found[f"{EXPERT}.weight_packed"]


SHARED = "language_model.model.layers.1.mlp.shared_experts.up_proj"
BIAS = "language_model.model.layers.1.mlp.gate.e_score_correction_bias"
TENSOR_FAULTS = {
    "norm gone": (drop(NORM), "tensor model.norm.weight is missing"),
    "scale gone": (drop(f"{EXPERT}.weight_scale"), "experts.1.up_proj.weight_scale is missing"),
    "bias gone": (drop(BIAS), "mlp.gate.e_score_correction_bias is missing"),
    "head of 8-byte floats": (
        retype("language_model.lm_head.weight", "F64", 4),
        "tensor lm_head.weight is F64; expected BF16 or F32 or F16",
    ),
    "packed as floats": (
        retype(f"{EXPERT}.weight_packed", "F32"),
        "weight_packed is F32; expected I32",
    ),
    "scales as halves": (retype(f"{EXPERT}.weight_scale", "F16"), "weight_scale is F16; expected"),
    "bias as integers": (retype(BIAS, "I32"), "e_score_correction_bias is I32; expected F32 or B"),
    "logical shape as floats": (
        retype(f"{EXPERT}.weight_shape", "F32"),
        "weight_shape is F32; expected I32 or I64",
    ),
    "packed transposed": (
        reshape(f"{EXPERT}.weight_packed", [8, 32]),
        "weight_packed has the shape [8, 32]; config.json asks for [32, 8]",
    ),
    "norm of two dimensions": (reshape(NORM, [1, 64]), "model.norm.weight has the shape [1, 64]"),
    "dense expert": (tensors(unpack_expert), "weight_packed is missing: the expert is not INT4"),
    "packed shared expert": (
        rename(f"{SHARED}.weight", f"{SHARED}.weight_packed"),
        "shared_experts.up_proj.weight is missing: it is INT4, which only experts may be",
    ),
    "names of transformers": (
        rename("language_model.model.", "model.language_model."),
        "is named as transformers saves it",
    ),
    "names mixed": (
        rename("language_model.lm_head", "lm_head"),
        "'lm_head.weight' has no prefix language_model. while others have",
    ),
    "no projector": (
        tensors(
            lambda found: [found.pop(n) for n in list(found) if n.startswith("mm_projector.pre")]
        ),
        "tensor mm_projector.pre_norm.weight is missing",
    ),
    "pos_emb of another size": (
        reshape("vision_tower.patch_embed.pos_emb.weight", [8, 32, 48]),
        "pos_emb.weight has the shape [8, 32, 48]",
    ),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_tensors(model_dir, capsys, fault):
    damage, expected = TENSOR_FAULTS[fault]
    damage(model_dir)
    assert expected in complaint(model_dir, capsys)


@pytest.mark.parametrize("name", ["tiktoken.model", "tokenizer_config.json"])
def test_no_tokenizer(model_dir, name):
    (model_dir / name).unlink()
    with pytest.raises(CheckpointError, match=name) as caught:
        Tokenizer.from_dir(model_dir)
    assert "\n" not in str(caught.value)


# --- random damage -----------------------------------------------------------------------------


def survives(model_dir):
    """Open the model and touch all of it: success or one of our errors, anything else fails."""
    try:
        config = ModelConfig.from_dir(model_dir)
        with Checkpoint.open(model_dir, config) as checkpoint:
            for name in checkpoint:
                checkpoint.tensor(name).tobytes()
    except KimiLocalError as error:
        message = str(error)
    else:
        return True
    assert message.isascii()
    assert message.isprintable()
    return False


def mangle(rng, data, region):
    """Flip, cut, double or insert bytes in the first `region` bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = rng.randrange(min(region, len(data)))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(b'{}[]",:-0123456789eE. \\u\x00\x7f\xff')
        elif kind == 2:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        else:
            data[at : at + 1] = rng.choice((b"-", b"9999999999", b"null", b"1e999", b'"', b"[[["))
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "rounds"), [("config.json", 400), (INDEX, 200), (FIRST, 400), ("shrunk", 60)]
)
def test_random_damage(model_dir, name, rounds):
    rng = random.Random(name)
    path = model_dir / (FIRST if name == "shrunk" else name)
    sound = path.read_bytes()
    region = 8 + int.from_bytes(sound[:8], "little") if name == FIRST else len(sound)
    refused = 0
    for _ in range(rounds):
        broken = (
            sound[: rng.randrange(len(sound))] if name == "shrunk" else mangle(rng, sound, region)
        )
        path.write_bytes(broken)
        refused += not survives(model_dir)
    path.write_bytes(sound)
    assert survives(model_dir)
    assert refused > rounds // 3  # the damage is real


NASTY = [
    None, True, False, 0, -1, 1, 3, 1 << 31, 1 << 63, 1 << 80, 0.5, -0.0, 1e308, "", "x", "\0",
    [], [[]], {}, {"a": {}}, [0] * 50, "yarn", "float('nan')", "../..", "\ud800",
]  # fmt: skip


def test_random_values_in_the_configuration(model_dir):
    """Any value anywhere: refused, or the tensors refuse it, or it changes nothing that matters."""
    rng = random.Random(5)
    path = model_dir / "config.json"
    sound = json.loads(path.read_text())
    refused = 0
    for _ in range(500):
        values = json.loads(json.dumps(sound))
        node = values
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.1:
                break
            node = node[key]
        node[key] = rng.choice(NASTY)
        path.write_text(json.dumps(values))
        refused += not survives(model_dir)
    assert refused > 200
