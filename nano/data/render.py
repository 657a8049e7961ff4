"""A conversation as the runtime would send and read it: token ids, what to learn, pictures.

    prompt ids of `encode_chat`, the repository's own, with its own template and tokenizer
    ... <|im_assistant|>assistant<|im_middle|><think>     REASONING </think> CONTENT TOOLS END
        weight 0 (or a little)                            weight 1

Instant answers of earlier turns are learnt too: the template shows them as they were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hybrid.chat.messages import normalise
from hybrid.chat.prompt import encode_chat, render_chat
from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.chat.vocabulary import Vocabulary
from hybrid.vision.media import Item, Media
from hybrid.vision.media_config import PUBLISHED
from hybrid.vision.opening import open_parts
from hybrid.vision.prompt import expanded
from nano.data.sample import Message, Sample
from nano.model.batch import Row

MOST_MEDIA_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Renderer:
    """The tokenizer of the model in the making, with the built-in template."""

    tokenizer: Tokenizer
    template: ChatTemplate

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Renderer":
        """A renderer for a vocabulary."""
        return cls(Tokenizer(vocabulary), ChatTemplate.built_in())

    def prompt(self, sample: Sample) -> tuple[list[int], list[Media]]:
        """Ids with one placeholder an item, and the media."""
        parts = normalise(sample.messages).media
        media = open_parts(parts, (), PUBLISHED, MOST_MEDIA_TOKENS, None) if parts else []
        ids = encode_chat(
            self.tokenizer, self.template, sample.messages, thinking=sample.thinking,
            tools=sample.tools or None, videos=[m.stamps for m in media if m.kind == "video"],
        )  # fmt: skip
        return ids, media

    def answer(self, sample: Sample) -> list[int]:
        """Ids that the model should say, up to and with <|im_end|>."""
        return self.tokenizer.encode_with_specials(answer_text(sample.answer))

    def row(self, sample: Sample, prompt_weight: float = 0.0) -> Row:
        """The whole conversation; `prompt_weight` is for learning ids that others wrote."""
        prompt, media = self.prompt(sample)
        items = [item for each in media for item in each.items]
        placeholder = self.tokenizer.id_of("<|media_pad|>")
        answer = self.answer(sample)
        whole = expanded(prompt, placeholder, items)
        weights = self._earlier(whole.ids, placeholder, prompt_weight)
        shown: tuple[tuple[int, Item], ...] = tuple((p.start, p.item) for p in whole.media)
        return Row(sample.task, [*whole.ids, *answer], [*weights, *[1.0] * len(answer)], shown)

    def _earlier(self, ids: Sequence[int], placeholder: int, prompt_weight: float) -> list[float]:
        """Weights of a prompt: 1 in instant answers of earlier turns, pictures never."""
        named = {
            name: self.tokenizer.id_of(name)
            for name in ("</think>", "<|im_end|>", "<|im_assistant|>")
        }
        weights, inside, assistant = [], False, False
        for token in ids:
            weights.append(1.0 if inside else 0.0 if token == placeholder else prompt_weight)
            if token == named["<|im_assistant|>"]:
                assistant = True
            elif token == named["<|im_end|>"]:
                inside = assistant = False
            elif token == named["</think>"]:
                inside = assistant
        return weights


def answer_text(answer: Message) -> str:
    """What an assistant message looks like behind its generation prompt (spec §5.7)."""
    thought = f"{answer['reasoning_content']}</think>" if "reasoning_content" in answer else ""
    calls = "".join(
        f"<|tool_call_begin|>{call['id']}<|tool_call_argument_begin|>{call['function']['arguments']}<|tool_call_end|>"
        for call in answer.get("tool_calls", ())
    )
    section = f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>" if calls else ""
    return f"{thought}{answer['content']}{section}<|im_end|>"


def flat_text(template: ChatTemplate, sample: Sample) -> str:
    """Everything that is read or said in a conversation, to count byte pairs in."""
    shown = render_chat(template, sample.messages, thinking=sample.thinking, tools=sample.tools)
    return shown + answer_text(sample.answer)
