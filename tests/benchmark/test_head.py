"""The first line of a file: enough to tell two machines apart, nothing about who owns one."""

import json
import platform
import socket
import subprocess
from dataclasses import replace

import pytest

from hybrid.benchmark import head as head_module
from hybrid.benchmark.head import commit, environment, file_head
from hybrid.benchmark.sample import Asked
from hybrid.config import ModelConfig
from hybrid.hardware import Cpu, Hardware
from hybrid.inventory import take_inventory

MACHINE = Hardware(cpu=Cpu(name="A CPU", cores=4))
OPTIONS = {"threads": 2, "records": "/some/where/experts.kl", "isa": "avx2"}


@pytest.fixture
def config(tiny_dir):
    return ModelConfig.from_dir(tiny_dir)


def test_what_it_says(config):
    found = file_head("tiny", config, OPTIONS, Asked(3, "greedy"), MACHINE)
    assert next(iter(found)) == "bench"
    assert found["hardware"]["cpu"]["cores"] == 4
    assert found["environment"]["cpu"] == "A CPU"
    assert found["model"]["bytes"] == take_inventory(config).bytes
    assert found["model"]["experts"] == config.text.n_routed_experts
    assert found["asked"] == {"seed": 3, "feed": "greedy"}
    assert found["options"] == OPTIONS | {"records": "given"}
    assert Hardware.from_json(found["hardware"]) == MACHINE


def test_it_names_no_host_and_no_directory(config, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "my-own-computer")
    monkeypatch.setattr(platform, "node", lambda: "my-own-computer")
    text = json.dumps(file_head("tiny", config, OPTIONS, Asked(), MACHINE))
    assert "/" not in text
    assert "my-own-computer" not in text


def test_a_source_tree_has_a_commit(tmp_path):
    assert commit(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert commit(tmp_path) is None  # nothing to describe yet
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(
        ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "x"],
        check=True,
    )
    assert len(commit(tmp_path)) >= 7


def test_no_git_is_no_error(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) is None


def test_a_package_that_is_not_there_is_unknown(monkeypatch):
    monkeypatch.setattr(head_module, "_PACKAGES", ("no-such-package",))
    found = environment(replace(MACHINE, cpu=Cpu()))
    assert (found["no-such-package"], found["cpu"]) == (None, None)
