"""`kimi-local inspect`: what a user reads, and what a program reads."""

import json

import pytest

from cli.inspect import _count, _size
from cli.main import run
from hybrid.tiny import write_tiny
from tests.checkpoint_files import SMALL, all_tensors, rewrite

TABLE = """\
KimiK25ForConditionalGeneration: 2 layers, 1 dense and 1 with 3 experts, 2 per token

component   tier    tensors    parameters        size       per token
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("inspect") / "tiny", SMALL)


def output(capsys, *args):
    assert run(["inspect", *map(str, args)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_table(written, capsys):
    out = output(capsys, written)
    assert out.startswith(TABLE)
    lines = out.splitlines()
    assert len({len(line) for line in lines[2:13]}) == 1  # header and ten components line up
    assert "KV cache    192 B per token, 3.15 MB at 16,384 tokens" in lines
    assert lines[-1].startswith("files       5 shards, ")
    assert lines[-1].endswith("none ignored")
    assert "experts INT4 in groups of 32" in out


def test_json(written, capsys):
    report = json.loads(output(capsys, written, "--json"))
    stored = all_tensors(written)
    assert report["bytes"] == sum(len(data) for _, _, data in stored.values())
    assert report["tensors"] == len(stored) == sum(c["tensors"] for c in report["components"])
    assert report["layers"] == {"dense": 1, "moe": 1}
    assert report["experts"] == {"per_layer": 3, "per_token": 2}
    assert report["quantization"] == {"num_bits": 4, "group_size": 32}
    assert report["vision"] is True
    assert report["prefix"] == "language_model."
    assert report["shards"] == 5
    assert report["kv_bytes_per_token"] == 2 * (32 + 16) * 2
    parts = {c["name"]: c for c in report["components"]}
    experts = 3 * (3 * 64 * 32 // 2 + 3 * 64 * 32 // 32 * 2)
    assert report["tiers"]["RAM"]["bytes"] == experts + parts["embedding"]["bytes"]
    assert parts["routed"]["bytes_per_token"] == experts * 2 // 3
    assert {name for name, c in parts.items() if c["tier"] == "RAM"} == {"routed", "embedding"}


def test_without_vision_its_bytes_are_in_no_tier(written, capsys):
    whole = json.loads(output(capsys, written, "--json"))
    report = json.loads(output(capsys, written, "--json", "--no-vision"))
    parts = {c["name"]: c for c in report["components"]}
    vision = parts["vision"]["bytes"] + parts["projector"]["bytes"]
    assert vision > 0
    assert report["left_out_bytes"] == vision
    assert {name for name, c in parts.items() if c["tier"] is None} == {"vision", "projector"}
    assert report["tiers"]["RAM"] == whole["tiers"]["RAM"]
    difference = whole["tiers"]["device"]["bytes"] - report["tiers"]["device"]["bytes"]
    assert difference == vision  # SMALL has no tensor that stays behind
    assert (whole["left_out_bytes"], report["bytes"]) == (0, whole["bytes"])
    table = output(capsys, written, "--no-vision").splitlines()
    assert f"left out    {_size(vision)}: vision and projector" in table
    assert [line[12] for line in table if line.startswith(("vision", "projector"))] == ["-", "-"]
    assert "left out" not in output(capsys, written)


def test_a_text_only_checkpoint_has_no_vision_to_leave_out(tmp_path, capsys):
    directory = write_tiny(tmp_path / "tiny", SMALL, prefix=False)
    assert output(capsys, directory, "--no-vision") == output(capsys, directory)


def test_ignored_tensors_are_shown_without_their_control_characters(tmp_path, capsys):
    directory = write_tiny(tmp_path / "tiny", SMALL, prefix=False)
    rewrite(directory, all_tensors(directory) | {"\x1b[2Jghost": ("F32", (1,), bytes(4))})
    out = output(capsys, directory)
    assert "1 more ignored ('\\x1b[2Jghost', ...)" in out
    assert "\x1b" not in out
    assert out.startswith("DeepseekV3ForCausalLM: ")
    assert json.loads(output(capsys, directory, "--json"))["ignored"] == ["\x1b[2Jghost"]


def test_a_directory_is_needed(capsys):
    assert run(["inspect"]) == 2
    assert "Missing argument 'DIR'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_994, "999.99 kB"),
        (999_996, "1.00 MB"),
        (24_772_632, "24.77 MB"),
        (595_148_192_736, "595.15 GB"),
        (10**16, "10000.00 TB"),
    ],
)
def test_sizes(number, text):
    assert _size(number) == text


def test_counts():
    assert _count(896) == "896"
    assert _count(1_026_408_232_448) == "1.03 T"
