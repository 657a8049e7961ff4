"""An engine without a model: what it answers is scripted by the last user message.

Also a program: `python tests/cli/fake_engine.py chat ...` runs the real command line on it.
"""

import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hybrid.errors import ContextTooLongError, KernelError, RequestError
from hybrid.events import Event, ToolCall, Usage
from hybrid.progress import Progress, ignore

MARKDOWN = """\
# Title

Some **bold** text.

- one
- two

```python
x = 1
print(x)
```

The end.
"""
HOSTILE = (
    "safe\x1b]0;owned\x07 \x1b[31mred\x1b[0m \x9b2Jend \x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\link"
)
TOKEN_S = 0.02
OPTIONS = SimpleNamespace(isa="avx2", activation="int16")
PNG, MP4 = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypisom"


def png(width, height, content=b""):
    """As much of a PNG as this engine looks at; `content` tells one from another."""
    return PNG + b"\0\0\0\rIHDR" + struct.pack(">II", width, height) + content


@dataclass
class FakeEngine:
    """Records the calls it gets; `kv_tokens`, `options`, `stats` as the real one has them."""

    kv_tokens: int = 1000
    model_dir: Path | None = None
    options: Any = field(default_factory=lambda: OPTIONS)
    calls: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    vision: bool = True  # as hybrid.load was asked
    config: Any = field(default_factory=lambda: SimpleNamespace(vision="a tower"))
    opened: list[str] = field(default_factory=list)
    vision_s: float = 0.0  # in the tower, for the last answer
    run: Any = None  # the last answer beside the plan
    plan: Any = None
    records: dict[str, int] = field(default_factory=lambda: {"vram": 0, "ram": 480, "nvme": 0})

    @property
    def sees(self):
        return self.vision and self.config.vision is not None

    def open_image(self, source, name=None):
        if not source.startswith(PNG) or len(source) < 24:
            raise RequestError(f"{name} is not a picture that can be read", "messages")
        self.opened.append(name)
        return media("image", name, *struct.unpack(">II", source[16:24]))

    def open_video(self, source, name=None):
        if not source.startswith(MP4):
            raise RequestError(f"{name} is not a video that can be read", "messages")
        self.opened.append(name)
        return media("video", name, 640, 360)

    def generate(
        self, messages, sampling, images=(), thinking=True, tools=None, *, progress, should_stop
    ):
        self.calls.append(
            {"messages": messages, "sampling": sampling, "thinking": thinking, "tools": tools}
        )
        text = words(messages[-1])
        seen = [item for message in messages for item in shown(message)]
        prompt = sum(len(words(m).split()) for m in messages) + sum(item.tokens for item in seen)
        slow = "slow look" in text  # half a minute, unless it is stopped
        for done in range((300 if slow else 5) if seen else 0):
            progress(Progress("vision", min(1000 * done, 4000), 4000, "patches"))
            time.sleep(0.1 if slow else 0)
            if should_stop():
                yield Event("finish", finish_reason="cancelled", usage=Usage(prompt, 0, 0, 0))
                return
        yield from self._prefill(text, prompt, progress, should_stop)
        done, reasoning, reason = 0, 0, "stop"
        if thinking:
            for word in thoughts(text):
                time.sleep(TOKEN_S if "ponder" in text else 0)
                should_stop()
                done, reasoning = done + 1, reasoning + 1
                yield Event("reasoning", word, (done,))
        for word in script(text, messages, tools):
            if isinstance(word, ToolCall):
                reason = "tool_calls"
                yield Event("tool_call", "", (1,) * 5, tool_call=word)
                done += 5
                continue
            if sampling.max_tokens is not None and done >= sampling.max_tokens:
                reason = "length"
                break
            if "slow" in text:
                time.sleep(TOKEN_S)
            if should_stop() and "deaf" not in text:
                reason = "cancelled"
                break
            done += 1
            yield Event("content", word, (done,))
        yield Event("finish", finish_reason=reason, usage=Usage(prompt, 0, done, reasoning))

    def _prefill(self, text, prompt, progress, should_stop):
        for done in range(0, 101, 20):
            progress(Progress("prefill", done, 100, "tokens"))
            if "slow prefill" in text:
                time.sleep(0.1)
            if should_stop():
                yield Event("finish", finish_reason="cancelled", usage=Usage(prompt, 0, 0, 0))
                return
        if text == "too long":
            raise ContextTooLongError(2000, self.kv_tokens)

    def stats(self):
        return {
            "tokens": 7,
            "seconds": {"prefill": 0.5},
            "last": {"vision_s": self.vision_s, "expert_reads": {"ram": 7}},
            "tiers": {tier: {"records": n} for tier, n in self.records.items()},
        }

    def last_run(self):
        return self.run

    def close(self):
        self.closed = True


def words(message):
    """The text of a message, whatever it shows."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def shown(message):
    """The pictures and videos of a message."""
    content = message["content"]
    parts = content if isinstance(content, list) else []
    return [part[part["type"]] for part in parts if part["type"] != "text"]


def media(kind, name, width, height):
    """Media of the right number of tokens, without pixels; a video has two chunks."""
    import numpy as np

    from hybrid.vision.media import Item, Media

    grid = (1 if kind == "image" else 4, 2 * -(-height // 28), 2 * -(-width // 28))
    item = Item(np.zeros((0, 588), np.uint8), grid)
    if kind == "image":
        return Media("image", name, width, height, (item,))
    return Media("video", name, width, height, (item, item), ("00:00:00.000", "00:00:02.000"), 4.0)


def thoughts(text):
    """The pieces of the thinking about `text`."""
    if "ponder" in text:
        return [f"step{i} and more words to fill the line\n" for i in range(30)]
    return ["Let ", "me ", "think.\n"]


def script(text, messages, tools):
    """The pieces of the answer to `text`."""
    if text == "boom":
        yield "half an ans"
        raise KernelError("worker 3 died; run kimi-local doctor")
    if text == "markdown":
        yield from (MARKDOWN[i : i + 7] for i in range(0, len(MARKDOWN), 7))
    elif text == "hostile":
        yield from HOSTILE
    elif text == "flood":
        yield from ("more than any pipe holds " * 100 for _ in range(1000))
    elif "slow" in text or "many" in text:
        yield from (f"word{i} " for i in range(40 if "brief" in text else 400))
    elif tools and messages[-1]["role"] == "user":
        yield ToolCall("functions.get_weather:0", "get_weather", '{"city": "Paris"}')
    else:
        yield from ("You ", "said ", f"{text}", ".")


def load(model_dir, *, progress=ignore, kv_tokens=None, vision=True, **options):
    """In place of hybrid.load."""
    for done in (0, 50, 100):
        progress(Progress("weights", done * 10**6, 100 * 10**6, "bytes"))
    return FakeEngine(kv_tokens or 1000, model_dir, vision=vision)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import hybrid
    from cli.main import main

    hybrid.load = load
    main()
