"""What is kept and measured of an answer."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cli import turn
from cli.attachments import attach
from cli.conversation import Conversation, Message, engine_message
from cli.figures import stats_line
from cli.turn import Recording
from hybrid.errors import ContextTooLongError, RequestError
from hybrid.events import Event, ToolCall, Usage
from tests.cli.fake_engine import FakeEngine, png

CALL = ToolCall("functions.f:0", "f", "{}")


class Still:
    """No interrupt, and a view that counts."""

    requested = False

    def __init__(self):
        self.finished = 0

    def finish(self):
        self.finished += 1

    def show(self, event):
        pass

    def progress(self, progress, label=""):
        pass

    def tick(self, *, stopping):
        pass


@pytest.fixture
def clock(monkeypatch):
    """Times that the recording reads, one after another."""
    times = iter(range(100, 200))
    monkeypatch.setattr(turn, "perf_counter", lambda: float(next(times)))


def recorded(*events: Event) -> Recording:
    recording = Recording(started=98.0)
    for event in events:
        recording.add(event)
    return recording


def test_rates_and_times(clock):
    recording = recorded(
        Event("reasoning", "a", (1, 2)),  # at 100 s, two seconds after the start
        Event("reasoning", "b", (3,)),  # 101
        Event("content", "c", (4, 5, 6)),  # 102
        Event("finish", finish_reason="stop", usage=Usage(30, 10, 6, 3)),  # 103
    )
    figures = recording.figures
    assert figures.first_token_s == 2.0
    assert figures.prefill_tok_s == (30 - 10) / 2.0
    assert figures.decode_tok_s == 4 / 3.0  # tokens after the first event, 100 s to 103 s
    assert figures.thought_s == 1.0
    assert figures.total_s == 5.0
    message = recording.message()
    assert (message.content, message.reasoning, message.partial) == ("c", "ab", False)


def test_looking_at_pictures_is_no_prefill(clock):
    recording = recorded(
        Event("content", "a", (1,)),  # at 100 s, two seconds after the start
        Event("finish", finish_reason="stop", usage=Usage(30, 10, 1, 0)),
    )
    recording.looked_s = 0.5
    figures = recording.figures
    assert (figures.first_token_s, figures.looked_s) == (2.0, 0.5)
    assert figures.prefill_tok_s == (30 - 10) / 1.5
    assert "looked for 0.5 s" in stats_line(figures, recording.usage, 100)


def test_the_engine_tells_how_long_it_looked():
    recording = Recording()
    conversation = Conversation(messages=[Message("user", "hello")])
    turn.stream(FakeEngine(vision_s=0.25), conversation, Still(), recording, Still())
    assert recording.looked_s == 0.25


def test_an_answer_cut_off_is_kept_marked_and_counted_by_us(clock):
    recording = recorded(Event("reasoning", "a", (1,)), Event("content", "half", (2, 3)))
    assert recording.message().partial
    assert recording.usage == Usage(completion_tokens=3, reasoning_tokens=1)
    assert recording.figures.prefill_tok_s is None


def test_nothing_came(clock):
    recording = recorded(Event("finish", finish_reason="cancelled", usage=Usage(5)))
    assert recording.empty
    assert recording.figures.first_token_s is None


def test_one_token_has_no_decode_rate(clock):
    recording = recorded(Event("content", "x", (1,)), Event("finish", finish_reason="stop"))
    assert recording.figures.decode_tok_s is None


def test_what_the_template_gets():
    assert engine_message(Message("user", "hi")) == {"role": "user", "content": "hi"}
    assert engine_message(
        Message("assistant", "", reasoning="r", tool_calls=(CALL,), partial=True, thought_s=1.0)
    ) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "r",
        "tool_calls": [
            {"id": CALL.id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert engine_message(Message("tool", "42", tool_call_id=CALL.id))["tool_call_id"] == CALL.id


def test_the_view_hears_what_is_looked_at(tmp_path):
    class Labels(Still):
        def __init__(self):
            super().__init__()
            self.labels = {}
            self.waits = []

        def progress(self, progress, label=""):
            self.labels[progress.phase] = label

        def waiting(self, label):
            self.waits.append(label)

        def attached(self, media):
            pass

    (tmp_path / "a.png").write_bytes(png(5, 5))
    (tmp_path / "b.png").write_bytes(png(6, 6))
    view, engine = Labels(), FakeEngine()
    files = [("image", tmp_path / "a.png"), ("image", tmp_path / "b.png")]
    one, two = attach(engine, view, files)
    conversation = Conversation(messages=[Message("user", "first", attachments=(one,))])
    turn.stream(engine, conversation, view, Recording(), view)
    assert view.labels == {"vision": "looking at a.png", "prefill": ""}
    conversation.messages += [Message("assistant", ""), Message("user", "x", attachments=(two,))]
    turn.stream(engine, conversation, view, Recording(), view)
    assert view.labels["vision"] == "looking at b.png"
    conversation.messages[0] = Message("user", "x", attachments=(replace(one, media=None),))
    view.waits.clear()
    turn.stream(engine, conversation, view, Recording(), view)
    assert view.labels["vision"] == "looking at 2 files"
    assert view.waits == ["looking at 2 files"]
    conversation.messages += [Message("assistant", ""), Message("user", "no picture")]
    turn.stream(engine, conversation, view, Recording(), view)
    assert len(view.waits) == 1


def test_a_prompt_that_is_too_long_is_told_in_the_words_of_the_command_line():
    view = Still()
    conversation = Conversation(messages=[Message("user", "too long")])
    with pytest.raises(RequestError, match="--context 2001 or more"):
        turn.stream(FakeEngine(), conversation, view, Recording(), view)
    assert view.finished == 1


@pytest.mark.parametrize(
    ("maximum", "advice"),
    [
        (None, "start with --context 2001 or more"),
        (2001, "start with --context 2001 or more"),
        (2000, "this model reads at most 2,000; shorten the prompt"),
        (1000, "this model reads at most 1,000; shorten the prompt"),
    ],
)
def test_no_context_is_advised_that_the_model_refuses(maximum, advice):
    class Full(FakeEngine):
        def generate(self, *_, **__):
            raise ContextTooLongError(2000, 1000, maximum)
            yield

    conversation = Conversation(messages=[Message("user", "x")])
    with pytest.raises(RequestError) as error:
        turn.stream(Full(), conversation, Still(), Recording(), Still())
    assert str(error.value).startswith("the prompt is 2,000 tokens but ")
    assert str(error.value).endswith(advice)
    assert ("--context" in str(error.value)) == ("--context" in advice)


@pytest.mark.parametrize("measured", [True, False])
def test_an_answer_is_kept_beside_a_plan_that_rests_on_measurements(measured, monkeypatch):
    kept, recording = [], Recording()
    monkeypatch.setattr("hybrid.last_run.remember", kept.append)
    run = SimpleNamespace(predicted=SimpleNamespace(decode_tok_s=14.0))
    engine = FakeEngine(run=run, plan=SimpleNamespace(measured=measured))
    conversation = Conversation(messages=[Message("user", "hello")])
    turn.stream(engine, conversation, Still(), recording, Still())
    assert kept == ([run] if measured else [])
    assert recording.figures.planned_tok_s == 14.0
