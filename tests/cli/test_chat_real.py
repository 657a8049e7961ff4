"""The command line on the real engine and the model in the box, without a script."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.cli.terminal import REPO, Terminal, environment


@pytest.fixture(scope="module")
def own_home(tmp_path_factory):
    """A home for all of them: what one remembers, the next finds."""
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


def test_one_prompt_as_json(own_home):
    done = one_shot(own_home, "-p", "Hi", "--instant", "--max-tokens", "8", "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] in ("stop", "length")
    assert 1 <= answer["usage"]["completion_tokens"] <= 8
    assert answer["stats"]["engine"]["context"]["tokens"] > 0
    assert "kimi-nano" in done.stderr


def test_a_picture_takes_the_tokens_that_were_announced(own_home, tmp_path):
    board = tmp_path / "board.jpg"
    gradient = Image.linear_gradient("L").resize((1024, 768))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(board)
    flags = ("--instant", "--max-tokens", "4", "--json")
    done = one_shot(own_home, "-p", "What is this?", "-i", str(board), *flags)
    assert done.returncode == 0, done.stderr
    assert "board.jpg 1024x768 -> 1,036 tokens" in done.stderr
    usage = json.loads(done.stdout)["usage"]
    assert 10 < usage["prompt_tokens"] - 1036 < 50  # the words, and the marks around them


def test_a_conversation(own_home):
    chat = Terminal(own_home, "--instant", "--max-tokens", "20", real=True)
    try:
        assert "kimi-nano" in chat.prompt()
        for turn in (1, 2):
            chat.enter(f"question {turn}")
            chat.wait_until(lambda text, n=turn: text.count("first token") == n, f"answer {turn}")
            chat.prompt()
        Image.new("RGB", (64, 64), "red").save(own_home / "red square.png")
        chat.enter("see ~/red square.png")
        chat.wait("▸ image red square.png 64×64 → 9 tokens")
        chat.wait_until(lambda text: text.count("first token") == 3, "an answer to a picture")
        chat.prompt()
        chat.enter("/context")
        chat.wait("6 messages")
        chat.prompt()
        chat.send("\x04")
        assert chat.exit_code() == 0
    finally:
        chat.close()


def test_a_broken_checkpoint_is_one_line(own_home, tmp_path):
    (tmp_path / "config.json").write_text("{")
    done = one_shot(own_home, "-p", "Hi", "-m", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("kimi-local: ")
    assert done.stderr.count("\n") == 1
