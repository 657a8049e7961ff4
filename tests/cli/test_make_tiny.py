"""`kimi-local make-tiny`: the options reach the checkpoint, and mistakes are one line."""

import json
import shlex

import pytest

from cli.main import run
from hybrid.config import ModelConfig
from hybrid.tiny import TinyShape
from tests.checkpoint_files import shards

SMALL = ("--layers", "2", "--experts", "4", "--top-k", "2")


def invoke(capsys, *args):
    code = run(["make-tiny", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_says_what_it_wrote_and_how_to_go_on(tmp_path, capsys):
    code, out, err = invoke(capsys, tmp_path / "tiny", *SMALL)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    files = list((tmp_path / "tiny").iterdir())
    size = sum(path.stat().st_size for path in files)
    assert out.startswith(f"wrote {len(files)} files, {size / 1e6:.1f} MB, to {tmp_path / 'tiny'}")
    assert out.endswith(f"kimi-local chat --model {tmp_path / 'tiny'}\n")


def test_the_printed_command_can_be_pasted(tmp_path, capsys):
    directory = tmp_path / "my tiny; model"
    _, out, _ = invoke(capsys, directory, *SMALL)
    assert shlex.split(out.partition("kimi-local ")[2])[-1] == str(directory)


def test_sizes_reach_the_configuration(tmp_path, capsys):
    code, out, _ = invoke(
        capsys, tmp_path / "tiny", *SMALL, "--hidden", 96, "--vocab", 700, "--seed", 7,
        "--shards", 2, "--json",
    )  # fmt: skip
    assert code == 0
    text = ModelConfig.from_dir(tmp_path / "tiny").text
    assert (text.num_hidden_layers, text.n_routed_experts, text.num_experts_per_tok) == (2, 4, 2)
    assert (text.hidden_size, text.vocab_size) == (96, 700)
    assert len(shards(tmp_path / "tiny")) == 2
    assert json.loads((tmp_path / "tiny" / "kimi-local-tiny.json").read_text())["seed"] == 7
    files = list((tmp_path / "tiny").iterdir())
    assert json.loads(out) == {
        "directory": str(tmp_path / "tiny"),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def test_no_option_means_the_default_shape(tmp_path, capsys):
    assert invoke(capsys, tmp_path / "tiny")[0] == 0
    config = ModelConfig.from_dir(tmp_path / "tiny")
    assert config.text.num_hidden_layers == TinyShape().num_hidden_layers
    assert config.vision is not None


@pytest.mark.parametrize(
    ("option", "architecture"),
    [("--no-vision", "KimiK25ForConditionalGeneration"), ("--flat", "DeepseekV3ForCausalLM")],
)
def test_forms_without_vision(tmp_path, capsys, option, architecture):
    assert invoke(capsys, tmp_path / "tiny", *SMALL, option)[0] == 0
    config = ModelConfig.from_dir(tmp_path / "tiny")
    assert (config.architecture, config.vision) == (architecture, None)
    assert run(["inspect", str(tmp_path / "tiny")]) == 0


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (("--top-k", "17"), "num_experts_per_tok is 17; n_routed_experts is only 16"),
        (("--layers", "0"), "num_hidden_layers is 0"),
        (("--hidden", "33"), "hidden_size is 33; expected a multiple of 32"),
        (("--vocab", "100"), "vocab_size is 100"),
        (("--vocab", "99999"), "supports at most"),
        (("--shards", "99"), "shards is 99; this shape divides into 1 to 7"),
        (("--tokenizer", "/nonexistent"), "/nonexistent"),
        (("--tokenizer", ".", "--vocab", "700"), "exclude each other"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_mistakes(tmp_path, capsys, args, fault):
    code, out, err = invoke(capsys, tmp_path / "tiny", *args)
    assert (code, out) == (2, "")
    assert fault in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_directory_stays(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = invoke(capsys, tmp_path)
    assert code == 2
    assert "is not empty and not a tiny checkpoint; choose another name" in err
    assert (tmp_path / "notes.txt").read_text() == "mine"
