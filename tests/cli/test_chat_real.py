"""The command line on the real engine and the built-in tiny model, without a script."""

import json
import subprocess
import sys

import pytest

from tests.cli.terminal import REPO, Terminal, environment


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory):
    """A home whose cache holds the tiny model after the first use."""
    return tmp_path_factory.mktemp("home")


def one_shot(home, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "chat", *args],
        cwd=REPO,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_one_prompt_as_json(tiny_home):
    done = one_shot(
        tiny_home, "-p", "Hi", "--instant", "--max-tokens", "8", "--seed", "5", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] in ("stop", "length")
    assert 1 <= answer["usage"]["completion_tokens"] <= 8
    assert answer["stats"]["engine"]["context"]["tokens"] > 0
    assert "random model" in done.stderr


def test_a_conversation(tiny_home):
    chat = Terminal(tiny_home, "--instant", "--max-tokens", "20", real=True)
    try:
        assert "random model" in chat.prompt()
        for turn in (1, 2):
            chat.enter(f"question {turn}")
            chat.wait_until(lambda text, n=turn: text.count("first token") == n, f"answer {turn}")
            chat.prompt()
        chat.enter("/context")
        chat.wait("4 messages")
        chat.prompt()
        chat.send("\x04")
        assert chat.exit_code() == 0
    finally:
        chat.close()


def test_a_broken_checkpoint_is_one_line(tiny_home, tmp_path):
    (tmp_path / "config.json").write_text("{")
    done = one_shot(tiny_home, "-p", "Hi", "-m", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("kimi-local: ")
    assert done.stderr.count("\n") == 1
