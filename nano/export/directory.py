"""Write the checkpoint directory: settings, tokenizer, template, shards, card (spec §1, §2).

DIR/config.json generation_config.json preprocessor_config.json
    tokenizer_config.json tiktoken.model chat_template.jinja
    model-00001-of-00000N.safetensors ... model.safetensors.index.json
    README.md
"""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybrid.chat.template import TEMPLATE_NAME, built_in_source
from hybrid.chat.vocabulary import CONFIG_NAME, MODEL_NAME, Vocabulary
from hybrid.checkpoint.expected import ExpectedTensor
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError
from hybrid.tiny.bpe import tokenizer_config, vocabulary_file
from hybrid.tiny.shape import MEDIA_LIMITS
from hybrid.tiny.shards import shard_of, write_shards
from nano.export.card import card
from nano.export.tensors import Stored, tensors
from nano.model.shape import raw_config
from nano.training.state import Run

PREFIX = "language_model."
SHARDS = 2  # a few megabytes each: small enough for a repository, and more than one for the index
END = "<|im_end|>"


def write(directory: Path, run: Run, vocabulary: Vocabulary) -> None:
    """Write the run's model; raises CheckpointError if the directory is there and not empty."""
    if directory.exists() and any(directory.iterdir()):
        raise CheckpointError(f"{directory} is not empty; choose another name or remove it")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    raw = raw_config(run.shape, vocabulary)
    config = ModelConfig.from_dict(raw)
    _write_settings(partial, raw, vocabulary)
    items = tensors(config, run.weights.master, run.weights.seen)
    write_shards(partial, _shards(items, config), SHARDS)
    parameters = sum(values.numel() for values in run.weights.master.values())
    (partial / "README.md").write_text(card(config, run.plan, parameters))
    partial.replace(directory)


def _write_settings(directory: Path, raw: dict[str, Any], vocabulary: Vocabulary) -> None:
    base = len(vocabulary.base)
    context = raw["text_config"]["max_position_embeddings"]
    end = base + vocabulary.special.index(END)
    _write_json(directory / "config.json", raw)
    _write_json(directory / "generation_config.json", {"max_length": context, "eos_token_id": end})
    _write_json(directory / "preprocessor_config.json", {"media_proc_cfg": dict(MEDIA_LIMITS)})
    _write_json(directory / CONFIG_NAME, tokenizer_config(base))
    (directory / MODEL_NAME).write_bytes(vocabulary_file(vocabulary.base))
    (directory / TEMPLATE_NAME).write_text(built_in_source(), "utf-8")


def _shards(
    items: Iterator[tuple[ExpectedTensor, Stored]], config: ModelConfig
) -> Iterator[dict[str, tuple[str, Stored]]]:
    layers = config.text.num_hidden_layers
    natural = layers + 3  # as published: layers, embedding and head, projector, tower

    def number(item: tuple[ExpectedTensor, Stored]) -> int:
        return shard_of(item[0], layers) * SHARDS // natural

    for _, group in itertools.groupby(items, number):
        yield {_full_name(want): (want.dtypes[0], array) for want, array in group}


def _full_name(want: ExpectedTensor) -> str:
    return want.name if want.component in ("vision", "projector") else PREFIX + want.name


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
