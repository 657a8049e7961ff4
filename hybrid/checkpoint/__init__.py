"""A checkpoint on disk as named, checked, lazily read tensors.

    directory -> shards.py (which files) -> header.py (what is where) -> expected.py (what must be)

Nothing is read at opening but the headers. `tensor()` returns a read-only view of the mapped file,
so the page cache is the only copy. A view keeps its mapping alive after `close()`.

The size of a file is looked at again whenever a view is handed out, so that a file shortened
meanwhile is an error. What remains: a file shortened, or a disk that fails, while a view of it is
being read kills the process with SIGBUS. Do not write to a model that is being
loaded; afterwards no file of it is open.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid.checkpoint.expected import ExpectedTensor, expected_tensors
from hybrid.checkpoint.header import TensorInfo
from hybrid.checkpoint.shards import Shards, open_shards
from hybrid.config import ModelConfig
from hybrid.errors import CheckpointError
from hybrid.model_files import shown

__all__ = ["Checkpoint", "ExpectedTensor", "TensorInfo", "expected_tensors"]

PREFIX = "language_model."
TRANSFORMERS_PREFIX = "model.language_model."
TEXT = (PREFIX, "model.", "lm_head.")

NUMPY_TYPES: Mapping[str, str] = {
    "BF16": "<u2",  # raw bits: numpy has no bf16
    "F16": "<f2",
    "F32": "<f4",
    "I32": "<i4",
    "I64": "<i8",
}


class Checkpoint:
    """The tensors that a model needs, under their published names without `language_model.`."""

    def __init__(self, shards: Shards, config: ModelConfig) -> None:
        self.prefix = _find_prefix(shards.tensors)
        names = shards.tensors.items()
        stored = {name.removeprefix(self.prefix): info for name, info in names}
        self._maps = shards.maps
        self._tensors, self.ignored = _select(stored, config)

    @classmethod
    def open(cls, model_dir: Path | str, config: ModelConfig) -> "Checkpoint":
        """Map the shards, check every header, and check what is there against the configuration.

        Raises CheckpointError in one line naming the file or the tensor.
        """
        return cls(open_shards(Path(model_dir)), config)

    def tensor(self, name: str) -> NDArray[Any]:
        """Return a read-only view of a tensor; BF16 comes as uint16 bits.

        The view is a copy only where the file does not align the tensor to its item size.
        """
        info = self.info(name)
        mapped = self._maps.get(info.file)
        if mapped is None:
            raise CheckpointError(f"the checkpoint is closed; tensor {name} cannot be read")
        if mapped.size() < info.offset + info.nbytes:
            raise CheckpointError(
                f"{info.file} was shortened while in use; tensor {name} is gone; download it again"
            )
        view: NDArray[Any] = np.ndarray(
            info.shape, NUMPY_TYPES[info.dtype], buffer=mapped, offset=info.offset
        )
        if view.flags.aligned:
            return view
        copy = view.copy()
        copy.flags.writeable = False
        return copy

    def info(self, name: str) -> TensorInfo:
        """Return dtype, shape and place of a tensor; raises CheckpointError for an unknown name."""
        if name not in self._tensors:
            raise CheckpointError(f"tensor {shown(name)} is not in the checkpoint")
        return self._tensors[name]

    def is_int4(self, name: str) -> bool:
        """Tell whether the Linear `name` (without `.weight`) is stored packed (spec §1.3)."""
        return f"{name}.weight_packed" in self._tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the shards."""
        return tuple(self._maps)

    def close(self) -> None:
        """Forget the mappings; each is unmapped when the last view of it is gone."""
        self._maps = {}

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _find_prefix(names: Mapping[str, TensorInfo]) -> str:
    """Return `language_model.` or ""; refuse a mixture, and the names transformers saves."""
    if foreign := next((name for name in names if name.startswith(TRANSFORMERS_PREFIX)), None):
        raise CheckpointError(
            f"tensor {shown(foreign)} is named as transformers saves it; "
            "kimi-local reads the published names (language_model.model...)"
        )
    text = [name for name in names if name.startswith(TEXT)]
    prefixed = sum(name.startswith(PREFIX) for name in text)
    if prefixed == 0:
        return ""
    if prefixed < len(text):
        bare = next(name for name in text if not name.startswith(PREFIX))
        raise CheckpointError(
            f"tensor {shown(bare)} has no prefix {PREFIX} while others have; names are mixed"
        )
    return PREFIX


def _select(
    stored: Mapping[str, TensorInfo], config: ModelConfig
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Split what is stored into what the model needs, checked, and what is ignored."""
    needed = {}
    for want in expected_tensors(config):
        info = stored.get(want.name)
        if info is not None:
            _require_match(want, info)
            needed[want.name] = info
        elif want.required:
            raise _missing(want, stored)
    return needed, tuple(name for name in stored if name not in needed)


def _require_match(want: ExpectedTensor, info: TensorInfo) -> None:
    if info.dtype not in want.dtypes:
        raise CheckpointError(
            f"{info.file}: tensor {want.name} is {info.dtype}; expected {' or '.join(want.dtypes)}"
        )
    if info.shape != want.shape:
        raise CheckpointError(
            f"{info.file}: tensor {want.name} has the shape {shown(list(info.shape))}; "
            f"config.json asks for {list(want.shape)}"
        )


def _missing(want: ExpectedTensor, stored: Mapping[str, TensorInfo]) -> CheckpointError:
    name = want.name
    if name.removesuffix("_packed") in stored:
        return CheckpointError(f"tensor {name} is missing: the expert is not INT4 but dense")
    if f"{name}_packed" in stored:
        return CheckpointError(f"tensor {name} is missing: it is INT4, which only experts may be")
    return CheckpointError(f"tensor {name} is missing from the shards; config.json asks for it")
