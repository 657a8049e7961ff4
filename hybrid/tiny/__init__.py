"""A small random checkpoint in the exact published format: for tests, and to chat without 600 GB.

    DIR/config.json                       raw published form; quantization under text_config
        generation_config.json  preprocessor_config.json
        tokenizer_config.json  tiktoken.model  chat_template.jinja
        model-00001-of-000007.safetensors ...  model.safetensors.index.json
        kimi-local-tiny.json              shape and seed: marks the directory as ours to replace

The directory appears complete or not at all.
"""

import errno
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hybrid.chat.vocabulary import (
    CONFIG_BYTES_LIMIT,
    CONFIG_NAME,
    MODEL_BYTES_LIMIT,
    MODEL_NAME,
    SPECIAL_SLOTS,
    Vocabulary,
)
from hybrid.checkpoint.expected import ExpectedTensor
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError, ConfigError
from hybrid.model_files import read_model_file
from hybrid.tiny.bpe import build_vocabulary, special_names, tokenizer_config, vocabulary_file
from hybrid.tiny.shape import K25_LAYOUT, MEDIA_LIMITS, TinyShape, config_json
from hybrid.tiny.shards import shard_of, write_shards
from hybrid.tiny.weights import random_tensors

__all__ = ["K25_LAYOUT", "TinyShape", "write_tiny"]

MARKER = "kimi-local-tiny.json"
PREFIX = "language_model."
NEEDED_NAMES = {"[BOS]", "[EOS]", "[PAD]", "<|im_end|>", "<|media_pad|>"}
TEMPLATE = Path(__file__).parent.parent / "chat" / "chat_template.jinja"


def write_tiny(
    directory: Path | str,
    shape: TinyShape = TinyShape(),  # noqa: B008  frozen
    seed: int = 0,
    *,
    prefix: bool = True,
    vision: bool | None = None,
    tokenizer_dir: Path | str | None = None,
    shards: int | None = None,
) -> Path:
    """Write a checkpoint of random weights and return its directory.

    `prefix` False writes K2-Thinking's form: flat config.json, bare names, no vision. `vision`
    None means "if the form has it". `tokenizer_dir` copies the tokenizer of a real checkpoint.
    `shards` None divides the model as the published one. The same arguments give the same bytes.
    Raises ConfigError for a shape that cannot be, CheckpointError if the directory is not ours
    to replace or cannot be written.
    """
    if vision and not prefix:
        raise ConfigError("vision needs the names with prefix; K2-Thinking has no vision")
    directory = Path(directory)
    vision = prefix if vision is None else vision
    vocabulary, tokenizer = _tokenizer(tokenizer_dir, shape.vocab_size - SPECIAL_SLOTS)
    shape = replace(shape, vocab_size=len(vocabulary.base) + SPECIAL_SLOTS)
    ids = {name: len(vocabulary.base) + slot for slot, name in enumerate(vocabulary.special)}
    if missing := NEEDED_NAMES - ids.keys():
        raise ConfigError(f"the tokenizer has no {min(missing)}; take that of a Kimi checkpoint")
    raw = config_json(shape, ids, prefix=prefix, vision=vision)
    config = ModelConfig.from_dict(raw)
    with _appearing(directory) as partial:
        for name, data in tokenizer.items():
            (partial / name).write_bytes(data)
        _write_settings(partial, raw, ids["<|im_end|>"], vision)
        _write_weights(partial, config, vocabulary, seed, PREFIX if prefix else "", shards)
        marker = {"shape": asdict(shape), "seed": seed, "prefix": prefix, "vision": vision}
        _write_json(partial / MARKER, marker)
    return directory


def _tokenizer(source: Path | str | None, base_size: int) -> tuple[Vocabulary, dict[str, bytes]]:
    """Return a vocabulary and its two files."""
    if source is None:
        base = build_vocabulary(base_size)
        settings = json.dumps(tokenizer_config(base_size), indent=2).encode() + b"\n"
        files = {MODEL_NAME: vocabulary_file(base), CONFIG_NAME: settings}
        return Vocabulary(base, special_names(base_size)), files
    limits = {MODEL_NAME: MODEL_BYTES_LIMIT, CONFIG_NAME: CONFIG_BYTES_LIMIT}
    copies = {name: read_model_file(Path(source), name, limit) for name, limit in limits.items()}
    return Vocabulary.from_dir(Path(source)), copies


def _write_settings(partial: Path, raw: Mapping[str, Any], end_id: int, vision: bool) -> None:
    _write_json(partial / "config.json", raw)
    limit = raw.get("text_config", raw)["max_position_embeddings"]
    _write_json(partial / "generation_config.json", {"max_length": limit, "eos_token_id": end_id})
    if vision:
        _write_json(partial / "preprocessor_config.json", {"media_proc_cfg": MEDIA_LIMITS})
    shutil.copyfile(TEMPLATE, partial / TEMPLATE.name)


def _write_weights(
    partial: Path,
    config: ModelConfig,
    vocabulary: Vocabulary,
    seed: int,
    prefix: str,
    shards: int | None,
) -> None:
    layers = config.text.num_hidden_layers
    natural = layers + (3 if config.vision else 1)
    total = natural if shards is None else shards
    if not 1 <= total <= natural:
        raise ConfigError(f"shards is {total}; this shape divides into 1 to {natural}")

    def number(item: tuple[ExpectedTensor, Any]) -> int:
        return shard_of(item[0], layers) * total // natural

    parts = (
        {_full_name(want, prefix): (want.dtypes[0], array) for want, array in items}
        for _, items in itertools.groupby(random_tensors(config, vocabulary, seed), number)
    )
    write_shards(partial, parts, total)


def _full_name(want: ExpectedTensor, prefix: str) -> str:
    return want.name if want.component in ("vision", "projector") else prefix + want.name


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """Give a temporary sibling that takes the place of `directory` if all goes well."""
    try:
        _require_replaceable(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise _cannot_write(directory, error) from None
    try:
        yield partial
        partial.chmod(0o755)
        _swap(partial, directory)
    except OSError as error:
        raise _cannot_write(directory, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_replaceable(directory: Path) -> None:
    if not _is_directory_or_absent(directory):
        raise CheckpointError(f"{directory} exists and is not a directory; choose another name")
    if _is_foreign(directory):
        raise CheckpointError(
            f"{directory} is not empty and not a tiny checkpoint; choose another name"
        )


def _is_directory_or_absent(directory: Path) -> bool:
    """Asked once: between two questions another process may move it aside."""
    try:
        return stat.S_ISDIR(directory.lstat().st_mode)
    except FileNotFoundError:
        return True


def _is_foreign(directory: Path) -> bool:
    """Whether it holds something of others; it may be swapped by another process meanwhile."""
    while True:
        try:
            opened = os.open(directory, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            names = os.listdir(opened)  # noqa: PTH208  of this very directory, wherever it moves
            if not names or MARKER in names:
                return False
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(opened), directory.stat()):
                    return True
        finally:
            os.close(opened)


def _swap(partial: Path, directory: Path) -> None:
    """Put `partial` in place; an older tiny checkpoint is removed after it has moved aside.

    Several processes may do so at once: the last one wins, and a reader finds no directory for an
    instant, but never half of one.
    """
    while True:
        try:
            partial.replace(directory)  # absent, or empty
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _require_replaceable(directory)  # again: it may have come since
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{directory.name}.", dir=directory.parent, ignore_cleanup_errors=True
            ) as aside,
            suppress(FileNotFoundError),  # another process was faster
        ):
            directory.replace(Path(aside) / "old")


def _cannot_write(directory: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot write {directory}: {error.strerror}; no part of it was left behind, "
        "choose another place or make room"
    )
