"""`kimi-local demo`: what the program does, in a minute, with the model that comes with it.

    text ─> thinking ─> a picture ─> a tool call ─> the expert cache at work

Nothing is staged: every answer is what the model says now, and the last step compares its own.
"""

import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import hybrid
from cli import settings
from cli.engine_loading import load_defaults, loaded

if TYPE_CHECKING:
    from cli.conversation import Conversation
    from cli.plain_view import PlainView
    from cli.turn import Recording
    from hybrid import Engine

QUESTION = "Which one is bigger, 9.11 or 9.9?"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SKIES = ("sunny", "rain", "snow", "cloudy")
SIDE = 84  # pixels of the picture
SHARE = 4  # in the last step the device gets one of so many experts, and so does RAM


@click.command("demo")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
def command(device: str) -> int:
    """Show text, thinking, a picture, a tool call and the expert cache in a minute.

    Runs kimi-nano, the very small trained model that comes with the program.
    """
    from cli.plain_view import PlainView

    here = settings.read()
    view = PlainView(colour=here.colour, chat=True, thoughts=True)
    flags = load_defaults() | {"model": hybrid.KIMI_NANO, "device": device}
    with loaded(here, flags, view) as engine:
        view.say("\n1 · Text")
        _ask(view, engine, _instant(), "Who are you?")
        view.say("\n2 · Thinking")
        thought = _ask(view, engine, _thinking(), QUESTION)
        view.say("\n3 · A picture")
        _look(view, engine)
        view.say("\n4 · A tool")
        _call_a_tool(view, engine)
        budget = _expert_bytes(engine) // SHARE
    view.say("\n5 · The expert cache")
    view.say(f"The same again: 1/{SHARE} of the experts on a device, 1/{SHARE} in RAM.", "dim")
    with loaded(here, flags | {"ram_budget": budget, "vram_budget": budget}, view) as engine:
        _compare(view, engine, thought)
    view.say("\nNow you: kimi-local chat. With a real checkpoint: kimi-local chat --model DIR")
    return 0


def _instant() -> "Conversation":
    from cli.conversation import Conversation

    return Conversation(thinking=False, sampling={"temperature": 0.0})


def _thinking() -> "Conversation":
    from cli.conversation import Conversation

    return Conversation(sampling={"temperature": 0.0})


def _ask(
    view: "PlainView", engine: "Engine", conversation: "Conversation", text: str, **shown: Any
) -> "Recording":
    """A message and the answer to it, both on the screen."""
    from cli.conversation import Message

    view.say(f"> {text}")
    conversation.messages.append(Message("user", text, **shown))
    return _answer(view, engine, conversation)


def _answer(view: "PlainView", engine: "Engine", conversation: "Conversation") -> "Recording":
    """The next answer, which becomes part of the conversation; KeyboardInterrupt after Ctrl-C."""
    from cli.figures import stats_line
    from cli.interrupt import Interrupt, silent_keyboard
    from cli.turn import Recording, stream

    recording = Recording()
    with Interrupt() as interrupt, silent_keyboard():
        stream(engine, conversation, view, recording, interrupt)
    if recording.finish_reason == "cancelled":
        raise KeyboardInterrupt
    conversation.messages.append(recording.message())
    view.say(f"  {stats_line(recording.figures, recording.usage, engine.kv_tokens)}", "dim")
    return recording


def _look(view: "PlainView", engine: "Engine") -> None:
    """A picture drawn now, shown as blocks where there is colour, and a question about it."""
    from cli.attachments import attach
    from cli.picture_blocks import blocks, shapes

    picture = shapes(SIDE)
    if view.shows_colour:
        click.echo(blocks(picture), color=True)
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "shapes.png"
        picture.save(file)
        shown = tuple(attach(engine, view, [("image", file)]))
    _ask(view, engine, _instant(), "What is in the picture?", attachments=shown)


def _call_a_tool(view: "PlainView", engine: "Engine") -> None:
    """The model asks for the weather, gets it, and tells it."""
    from cli.conversation import Message

    conversation = _instant()
    conversation.tools = [WEATHER]
    view.say("declared: get_weather(city)", "dim")
    calls = _ask(view, engine, conversation, "What is the weather in Paris?").tool_calls
    for call in calls:
        result = json.dumps({"temperature": random.randint(0, 35), "sky": random.choice(SKIES)})
        view.say(f"→ {call.name} {call.arguments}")
        view.say(f"← {result}")
        conversation.messages.append(Message("tool", result, tool_call_id=call.id))
    if calls:
        _answer(view, engine, conversation)


def _expert_bytes(engine: "Engine") -> int:
    """What all routed experts take in a cache."""
    from hybrid.cache.source import slot_bytes
    from hybrid.cpu_experts.record import RecordShape

    text = engine.config.text
    record = RecordShape.of(text).nbytes
    return text.moe_layers * text.n_routed_experts * slot_bytes(record)


def _compare(view: "PlainView", engine: "Engine", before: "Recording") -> None:
    """The question of step 2 with few experts in memory: another speed, the same tokens."""
    after = _ask(view, engine, _thinking(), QUESTION)
    same = (after.reasoning, after.content) == (before.reasoning, before.content)
    tiers = engine.stats()["tiers"]
    disk, device = tiers["nvme"], tiers["vram"]
    view.say(
        f"{disk['reads']:,} experts read from disk ({disk['read_bytes'] / 1e6:.1f} MB), "
        f"{device['promotions']:,} moved to the device. "
        + ("Token for token the same answer." if same else "ANOTHER ANSWER: please report it."),
        "plain" if same else "error",
    )
