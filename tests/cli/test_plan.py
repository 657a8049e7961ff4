"""`kimi-local plan`: what people read, what programs read, what is refused."""

import json

import pytest

import hybrid.hardware
from cli import main
from hybrid.hardware import Cpu, Hardware, Ram, Rates
from hybrid.placement import PlanOptions, builtin_config, builtin_machine, machine_names, plan
from hybrid.tiny import write_tiny
from tests.checkpoint_files import SMALL

GB = 10**9
HERE = Hardware(cpu=Cpu(name="A CPU", cores=8), ram=Ram(total_bytes=64 * GB, free_bytes=50 * GB))
LARGE = "epyc-9355-2s-rtx-5090"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command; (exit code, standard output, standard error)."""
    monkeypatch.setitem(main.COMMANDS, "plan", ("plan", "predict"))
    asked = []

    def probe(model_dir=None, **options):
        asked.append((model_dir, options))
        return HERE

    monkeypatch.setattr(hybrid.hardware, "probe", probe)

    def call(*args):
        capsys.readouterr()
        code = main.run(["plan", *map(str, args)])
        return (code, *capsys.readouterr())

    call.asked = asked
    return call


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("plan") / "tiny", SMALL)


def test_the_built_in_model_needs_no_weights(run):
    code, out, err = run("--hardware", LARGE)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{LARGE}: 2 x AMD EPYC 9355, 64 cores, 824.6 GB of RAM, NVIDIA")
    assert lines[1].startswith("rates       assumed")
    expected = plan(builtin_config(), builtin_machine(LARGE))
    assert f"decode      {expected.decode_tok_s:.2f} tokens/s; " in out
    assert f"limited by  {expected.bottleneck}" in lines
    assert "experts/layer           4        380          0" in lines


def test_columns_line_up(run):
    _, out, _ = run("--hardware", LARGE)
    table = out.split("\n\n")[1].splitlines()
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize("model", ["k2.5", "K2.5"])
def test_json_is_the_plans_own(run, model):
    code, out, _ = run("--model", model, "--hardware", LARGE, "--context", 65536, "--json")
    expected = plan(builtin_config(), builtin_machine(LARGE), PlanOptions(context=65536))
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads(json.dumps(expected.to_json()))


def test_every_option_reaches_the_plan(run):
    _, out, _ = run(
        "k2.5", "--hardware", LARGE, "--context", 4096, "--users", 2, "--no-vision", "--device",
        "cpu", "--backbone-weights", "int8", "--ram-budget", "300GB", "--vram-budget", "10GB",
        "--threads", 16, "--json",
    )  # fmt: skip
    options = PlanOptions(
        context=4096, users=2, vision=False, device="cpu", backbone_weights="int8",
        ram_budget=300 * GB, vram_budget=10 * GB, threads=16,
    )  # fmt: skip
    expected = plan(builtin_config(), builtin_machine(LARGE), options)
    assert json.loads(out) == json.loads(json.dumps(expected.to_json()))
    assert expected.settings["kv_tokens"] == 8192


def test_this_machine_is_asked_with_the_models_sizes(run, tiny):
    code, out, _ = run(tiny, "--threads", 3)
    assert code == 0
    assert out.startswith("this machine: A CPU, 8 cores, 64.0 GB of RAM\n")
    ((directory, options),) = run.asked
    assert directory == tiny
    assert options["threads"] == 3
    assert options["sizes"].hidden_size == SMALL.hidden_size


def test_a_directory_with_a_config_only(run, tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    shape = json.loads(run(tmp_path, "--json")[1])
    files = json.loads(run(tiny, "--json")[1])
    assert shape["bytes"] == files["bytes"]


def test_what_does_not_fit_is_a_plan_too(run):
    code, out, err = run("--hardware", LARGE, "--context", 262144, "--users", 64)
    assert (code, err) == (0, "")
    assert "does not fit: " in out
    assert "\n-> it fits with --" in out
    assert json.loads(run("--hardware", LARGE, "--users", 400, "--json")[1])["fits"] is False


def test_measured_rates_are_said_to_be(run, monkeypatch):
    rates = Rates(experts_gb_s=20, measured=True)
    machine = Hardware(ram=Ram(free_bytes=200 * GB), rates=rates)
    monkeypatch.setattr(hybrid.hardware, "probe", lambda *_, **__: machine)
    line = run()[1].splitlines()[1]
    assert line.startswith("rates       measured, but for ram_gb_s")
    assert "experts_gb_s," not in line


def test_a_calibration_comes_first(run, monkeypatch):
    import hybrid.calibration

    done = []

    def calibrate(sizes, **options):
        options["sink"]("memory")
        done.append((sizes.hidden_size, options["threads"], len(run.asked)))

    monkeypatch.setattr(hybrid.calibration, "calibrate", calibrate)
    code, _, err = run("--calibrate", "--threads", 2)
    assert (code, err) == (0, "measuring: memory\n")
    assert done == [(7168, 2, 0)]
    code, _, err = run("--calibrate", "--hardware", LARGE)
    assert code == 2
    assert "--calibrate measures this machine" in err


def test_machines_are_listed(run):
    assert run("--hardware", "list")[1].split() == list(machine_names())
    assert json.loads(run("--hardware", "list", "--json")[1]) == list(machine_names())


def test_a_machine_from_a_file(run, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(builtin_machine(LARGE).to_json() | {"name": "mine"}))
    code, out, _ = run("--hardware", path)
    assert code == 0
    assert out.startswith("mine: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "mine.json"),
        (b"[1]", "mine.json"),
        (b'{"ram": {"total_bytes": -1}}', "total_bytes"),
        (b'{"colour": "red"}', "colour"),
        (b'{"note": "' + b"x" * (1 << 20) + b'"}', "has more than 1048576 bytes"),
        (b"\xff\xfe", "mine.json"),
        (b"[" * 100_000, "mine.json"),
    ],
)
def test_a_hostile_file_is_one_line(run, tmp_path, content, told):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    code, out, err = run("--hardware", path)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--hardware", "epyc-9355-2s-rtx-509"], f"did you mean {LARGE}?"),
        (["--context", 0], "0 is not in the range"),
        (["--context", 1 << 20], "this model allows at most 262144"),
        (["k2.5", "--model", "other"], "the model is named twice"),
        (["/nowhere"], "/nowhere"),
        (["--ram-budget", "much"], "is no size"),
        (["--threads", 0], "0 is not in the range"),
    ],
)
def test_mistakes_are_one_line(run, args, told):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_damaged_checkpoint_is_refused(run, tiny, tmp_path):
    for path in tiny.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    code, _, err = run(tmp_path)
    assert code == 2
    assert "config.json only" in err
