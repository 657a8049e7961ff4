"""Which checkpoint a record file was made from: a fingerprint that costs some hundred small reads.

Sizes, and 4 KiB from the middle of one packed and one scale tensor of four experts in every layer,
taken in turn from gate, up and down, and from other experts in the next layer. Neither times nor
names of files count, nor how tensors are divided among shards: a copy has the same fingerprint, and
so has a model of which the backbone alone was changed, because its records are the same.

What it cannot see: a change of a few experts, or of a few bytes, that none of the samples meets. A
fine-tune of the experts quantised anew changes scales all over and is seen.
"""

import hashlib
import os
import struct
from pathlib import Path

from hybrid.cache.record_file import FINGERPRINT_BYTES, Contents
from hybrid.cache.shard_source import tensor_names
from hybrid.checkpoint import Checkpoint, TensorInfo
from hybrid.config import TextConfig
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import CheckpointError, ConfigError
from hybrid.model_files import open_model_file

SAMPLE_BYTES = 4096
SAMPLED_EXPERTS = 4  # of each layer


def contents_of(model_dir: Path | str, text: TextConfig, checkpoint: Checkpoint) -> Contents:
    """What a record file of this checkpoint must hold.

    Raises CheckpointError for a shard that cannot be read, ConfigError for a model without experts.
    """
    if not text.moe_layers:
        raise ConfigError("the model has no routed experts; there are no records of it")
    return Contents(
        RecordShape.of(text),
        text.first_k_dense_replace,
        text.moe_layers,
        text.n_routed_experts,
        fingerprint(Path(model_dir), text, checkpoint),
    )


def fingerprint(model_dir: Path, text: TextConfig, checkpoint: Checkpoint) -> bytes:
    """16 bytes that tell the routed experts of one checkpoint from those of another.

    Names, dtypes and shapes of all tensors follow from the sizes: the checkpoint has been checked
    against them.
    """
    infos = [checkpoint.info(name) for name in _sampled(text)]
    sizes = (
        text.hidden_size,
        text.moe_intermediate_size,
        text.first_k_dense_replace,
        text.num_hidden_layers,
        text.n_routed_experts,
    )
    hasher = hashlib.blake2b(struct.pack("<5Q", *sizes), digest_size=FINGERPRINT_BYTES)
    for sample in _read_samples(model_dir, infos):
        hasher.update(sample)
    return hasher.digest()


def _sampled(text: TextConfig) -> list[str]:
    names = []
    experts = text.n_routed_experts
    for layer in range(text.first_k_dense_replace, text.num_hidden_layers):
        count = min(SAMPLED_EXPERTS, experts)
        for turn in range(count):
            expert = (layer + turn * experts // count) % experts
            pair = 2 * ((layer + turn) % 3)  # gate, up or down
            names += tensor_names(layer, expert)[pair : pair + 2]
    return names


def _read_samples(model_dir: Path, infos: list[TensorInfo]) -> list[bytes]:
    """A sample of each tensor, in the order given; one file is open at a time."""
    samples = [b""] * len(infos)
    for file in sorted({info.file for info in infos}):
        fd = open_model_file(model_dir, file)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            for number, info in enumerate(infos):
                if info.file == file:
                    samples[number] = _sample(fd, info)
        except OSError as error:
            raise CheckpointError(f"cannot read {model_dir / file}: {error.strerror}") from None
        finally:
            os.close(fd)
    return samples


def _sample(fd: int, info: TensorInfo) -> bytes:
    length = min(SAMPLE_BYTES, info.nbytes)
    sample = os.pread(fd, length, info.offset + (info.nbytes - length) // 2)
    if len(sample) < length:
        raise CheckpointError(f"{info.file} was shortened while in use; download it again")
    return sample
