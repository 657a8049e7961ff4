"""An engine without a model: what it answers is scripted by the last user message.

Also a program: `python tests/cli/fake_engine.py chat ...` runs the real command line on it.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hybrid.errors import ContextTooLongError, KernelError
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


@dataclass
class FakeEngine:
    """Records the calls it gets; `kv_tokens`, `options`, `stats` as the real one has them."""

    kv_tokens: int = 1000
    options: Any = field(default_factory=lambda: OPTIONS)
    calls: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    def generate(
        self, messages, sampling, images=(), thinking=True, tools=None, *, progress, should_stop
    ):
        self.calls.append(
            {"messages": messages, "sampling": sampling, "thinking": thinking, "tools": tools}
        )
        text = str(messages[-1]["content"])
        prompt = sum(len(str(m["content"]).split()) for m in messages)
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
        return {"tokens": 7, "seconds": {"prefill": 0.5}}

    def close(self):
        self.closed = True


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


def load(model_dir, *, progress=ignore, kv_tokens=None, **options):
    """In place of hybrid.load."""
    for done in (0, 50, 100):
        progress(Progress("weights", done * 10**6, 100 * 10**6, "bytes"))
    return FakeEngine(kv_tokens=kv_tokens or 1000)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import hybrid
    from cli.main import main

    hybrid.load = load
    main()
