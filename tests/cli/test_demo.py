"""`kimi-local demo` as a newcomer sees it: real answers of the model in the box."""

import os
import signal

import pytest
from PIL import Image

import hybrid
from cli import demo, main, turn
from cli.picture_blocks import blocks, shapes


@pytest.fixture
def shown(home, capsys):
    """Run the demonstration: its exit code and what was on the screen."""

    def run(*args: str) -> tuple[int, str]:
        code = main.run(["demo", *args])
        out, err = capsys.readouterr()
        return code, out + err

    return run


def test_every_part_of_it_is_right(shown, monkeypatch):
    monkeypatch.setattr(demo.random, "randint", lambda *_: 18)
    monkeypatch.setattr(demo.random, "choice", lambda _: "snow")
    code, text = shown("--device", "cpu")
    assert code == 0, text
    lines = text.splitlines()
    for line in (
        "I am kimi-nano, a very small language model.",
        "9.9 is bigger.",
        "A red circle at the top left, a blue square at the bottom right.",
        '→ get_weather {"city": "Paris"}',
    ):
        assert line in lines
    assert '← {"temperature": 18, "sky": "snow"}' in lines
    assert "Temperature: 18, sky: snow." in lines
    assert "25% on the device" in text
    assert "Token for token the same answer." in lines[-3]
    assert "\x1b" not in text  # nobody watches in colour


def test_another_answer_out_of_the_cache_would_be_said(shown, monkeypatch):
    right, loads = hybrid.load, []

    def load(*args, **options):
        loads.append(options)
        engine = right(*args, **options)
        if options["ram_budget"] is not None:
            monkeypatch.setattr(demo, "QUESTION", "Which one is smaller, 9.11 or 9.9?")
        return engine

    monkeypatch.setattr(hybrid, "load", load)
    code, text = shown("--device", "cpu")
    assert (code, len(loads)) == (0, 2)
    assert "ANOTHER ANSWER" in text


def test_ctrl_c_ends_it(shown, monkeypatch):
    right = turn.Recording.add

    def add(self, event):
        right(self, event)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(turn.Recording, "add", add)
    code, text = shown("--device", "cpu")
    assert code == 130
    assert "2 · Thinking" not in text


def test_without_a_card_cuda_is_refused(shown, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, text = shown("--device", "cuda")
    assert code == 3
    assert text.splitlines()[-1].startswith("kimi-local: ")


def test_blocks_show_two_pixels_a_character():
    picture = Image.new("RGB", (2, 2))
    picture.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 2, 3)])
    assert blocks(picture, 2) == (
        "  \x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;255;0;48;2;1;2;3m▀\x1b[0m"
    )
    assert blocks(shapes(120), 24).count("\n") == 11
