"""A stream is cut into the blocks that the whole text has, and loses nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.markdown_blocks import BlockSplitter

TEXT = """\
# Title

First paragraph
goes on.

- one
- two
  more of two

  and a paragraph in it
- three

1. first
2. second

| a | b |
|---|---|
| 1 | 2 |

~~~~text
```
not the end
~~~
~~~~
> quoted
lazily

```python
def f():

    return 1
```
<b>html</b> is text

last line"""


def feed(text: str, size: int) -> list:
    splitter = BlockSplitter()
    pieces = [p for i in range(0, len(text), size) for p in splitter.feed(text[i : i + size])]
    return pieces + splitter.close()


@pytest.mark.parametrize("size", [1, 2, 7, 40, 10_000])
def test_nothing_is_lost_however_the_text_arrives(size):
    shown = "\n".join(piece.text for piece in feed(TEXT, size))
    assert words(shown) == words(without_fences(TEXT))


def without_fences(text: str) -> str:
    kept, fence = [], None
    for line in text.split("\n"):
        opening = re.match(r"(`{3,}|~{3,})", line)
        if fence is None and opening:
            fence = opening.group(1)
        elif line.strip() == fence:
            fence = None
        else:
            kept.append(line)
    return "\n".join(kept)


def words(text: str) -> list[str]:
    return text.split()


def test_blocks_are_what_they_are():
    kinds = [(piece.kind, piece.text.strip().split("\n")[0]) for piece in feed(TEXT, 1)]
    assert kinds[:5] == [
        ("block", "# Title"),
        ("block", "First paragraph"),
        ("item", "- one"),
        ("item", "- two"),
        ("item", "- three"),
    ]
    assert ("code", "```") in kinds  # inside the longer fence it is code
    assert ("code", "return 1") in kinds
    assert kinds[-1] == ("block", "<b>html</b> is text")


def test_items_and_code_lines_hang_together():
    pieces = feed(TEXT, 1)
    joined = {piece.text.strip().split("\n")[0]: piece.joined for piece in pieces}
    assert [joined[x] for x in ("- one", "- two", "- three")] == [False, True, True]
    assert [joined[x] for x in ("1. first", "2. second")] == [False, True]
    assert [joined[x] for x in ("def f():", "return 1")] == [False, True]
    assert not joined["# Title"]


def test_a_finished_block_is_there_before_the_end():
    splitter = BlockSplitter()
    assert splitter.feed("One para\ngraph.\n\n") == []
    assert [p.text for p in splitter.feed("Next\n")] == ["One para\ngraph.\n\n"]
    assert splitter.rest == "Next\n"


def test_code_comes_line_by_line():
    splitter = BlockSplitter()
    assert splitter.feed("```py\n") == []
    assert splitter.language == "py"
    assert [p.text for p in splitter.feed("x = 1\ny")] == ["x = 1"]
    assert [p.text for p in splitter.feed(" = 2\n```\n")] == ["y = 2"]
    assert splitter.language is None


def test_an_unclosed_fence_is_still_code():
    assert [(p.kind, p.text) for p in feed("```\na\nb", 3)] == [("code", "a"), ("code", "b")]


@given(st.text(alphabet=st.sampled_from([*"ab#->`~|1. \n\n\u2028*_["])), st.integers(1, 9))
def test_random_text_keeps_its_letters(text, size):
    if "```" in text or "~~~" in text:
        return  # an info string is not shown
    shown = "".join(piece.text for piece in feed(text, size))
    letters = [c for c in text if c in "ab1"]
    assert [c for c in shown if c in "ab1"] == letters or "]:" in text


def test_the_letter_check_sees_a_planted_loss(monkeypatch):
    monkeypatch.setattr(BlockSplitter, "_cut", lambda self, lines, start: setattr(self, "rest", ""))
    assert words("".join(p.text for p in feed("a\n\nb\n\nc", 1))) != ["a", "b", "c"]
