"""From what a caller sends to the rows that go through the model.

    token ids, images ───────────────> checked ─> placeholders expanded ─> Prompt
    messages ─> media opened ─> encode_chat ──^

Everything about a request that can be wrong is found here, before anything is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hybrid.chat.messages import MediaPart, normalise
from hybrid.chat.prompt import encode_chat
from hybrid.chat.template import ChatTemplate
from hybrid.chat.tokenizer import Tokenizer
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, RequestError
from hybrid.vision.features import Features
from hybrid.vision.prompt import Prompt, expanded

if TYPE_CHECKING:
    from hybrid.vision.media import Media

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompting:
    """What prompts are made with."""

    config: ModelConfig
    tokenizer: Tokenizer
    template: ChatTemplate
    vision: Features | None  # None: this model reads text only
    max_tokens: int  # that the media of one request may take

    def of_ids(self, token_ids: Sequence[int], images: Sequence[Any] | None) -> Prompt:
        """Token ids with an image for each placeholder."""
        ids = self._checked(token_ids)
        parts = [
            MediaPart("image", image, is_url=False, param=f"images[{index}]")
            for index, image in enumerate(_listed(images))
        ]
        return self._expanded(ids, self._opened(parts, (), None))

    def of_messages(
        self,
        messages: Sequence[Message],
        images: Sequence[Any] | None = (),
        media_root: Path | None = None,
        *,
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Prompt, int]:
        """A conversation, and the index of the first tool call that its answer may make."""
        conversation = normalise(messages)
        opened = self._opened(conversation.media, _listed(images), media_root)
        ids = encode_chat(
            self.tokenizer,
            self.template,
            messages,
            thinking=thinking,
            tools=tools,
            videos=[media.stamps for media in opened if media.kind == "video"],
        )
        self._require_written(ids, opened)
        return self._expanded(self._checked(ids), opened), conversation.next_call_index

    def open_image(self, source: Any, name: str | None = None) -> "Media":
        """See `Engine.open_image`."""
        config = self._require_vision().media
        from hybrid.vision.opening import open_image

        return open_image(source, config, name)

    def open_video(self, source: Any, name: str | None = None) -> "Media":
        """See `Engine.open_video`."""
        config = self._require_vision().media
        from hybrid.vision.opening import open_video

        return open_video(source, config, self.max_tokens, name)

    def _require_vision(self) -> Features:
        if self.vision is None:
            there = self.config.vision is not None
            why = "it was loaded without vision" if there else "it has no vision tower"
            raise RequestError(f"this model reads text only: {why}", "images")
        return self.vision

    def _opened(
        self, parts: Sequence[MediaPart], images: Sequence[Any], media_root: Path | None
    ) -> "list[Media]":
        if not parts and not len(images):
            return []
        config = self._require_vision().media
        from hybrid.vision.opening import open_parts

        return open_parts(parts, images, config, self.max_tokens, media_root)

    def _expanded(self, ids: list[int], opened: "Sequence[Media]") -> Prompt:
        items = [item for media in opened for item in media.items]
        return expanded(ids, self.config.media_placeholder_token_id, items)

    def _require_written(self, ids: list[int], opened: "Sequence[Media]") -> None:
        """A checkpoint's own template may forget an image, or show it twice."""
        written = sum(token == self.config.media_placeholder_token_id for token in ids)
        wanted = sum(len(media.items) for media in opened)
        if written != wanted:
            raise CheckpointError(
                f"the chat template wrote {written} media placeholders where the messages have "
                f"{wanted} images and chunks of video; it is not made for them"
            )

    def _checked(self, token_ids: Sequence[int]) -> list[int]:
        try:
            ids = np.asarray(token_ids)
        except ValueError:  # a ragged list
            ids = np.empty((0, 0))
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise RequestError("the prompt is empty or not a list of token ids", "messages")
        vocab_size = self.config.text.vocab_size
        if ids.min() < 0 or ids.max() >= vocab_size:
            bad = ids[(ids < 0) | (ids >= vocab_size)][0]
            raise RequestError(
                f"token id {bad} is not in the vocabulary of {vocab_size}", "messages"
            )
        return cast("list[int]", ids.tolist())


def _listed(images: Sequence[Any] | None) -> Sequence[Any]:
    if images is None:
        return ()
    if isinstance(images, str | bytes | bytearray) or not isinstance(images, Sequence):
        raise RequestError(f"images is a {type(images).__name__}; give a list of them", "images")
    return images
