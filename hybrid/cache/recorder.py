"""Writes a routing trace while a model runs, in the form that `trace_file` draws.

Each call of the engine becomes lines and one write. A file ends with a whole line whatever happens:
what a full disk leaves of a write is cut off again.
"""

import json
import math
import os
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from hybrid.cache.trace_file import VERSION
from hybrid.config import ModelConfig
from hybrid.cpu_experts.record import RecordShape
from hybrid.errors import KimiLocalError, RequestError


class Recorder:
    """An open trace file; the engine calls it once a layer and block of tokens."""

    def __init__(
        self, path: Path, *, model: str, layers: int, experts: int, k: int, record_bytes: int
    ) -> None:
        """Create the file with its header; RequestError where there already is one."""
        self.path = path
        self.rows = 0  # tokens times layers
        self._end = 0  # bytes of whole lines
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise RequestError(f"{path} is there already; name another file", "out") from None
        except OSError as error:
            raise RequestError(f"{path}: {error.strerror or error}", "out") from None
        header = {"trace": VERSION, "model": model, "layers": layers, "experts": experts, "k": k}
        try:
            self._write(json.dumps(header | {"record_bytes": record_bytes}) + "\n")
        except KimiLocalError:
            self._end_of_file()
            raise

    @classmethod
    def of(cls, config: ModelConfig, path: Path) -> "Recorder":
        """A recorder for a model with experts; RequestError for one without."""
        text = config.text
        if not text.moe_layers:
            raise RequestError(
                "the model has no layer with experts: there is nothing to record", "out"
            )
        return cls(
            path,
            model=config.architecture,
            layers=text.moe_layers,
            experts=text.n_routed_experts,
            k=text.num_experts_per_tok,
            record_bytes=RecordShape.of(text).nbytes,
        )

    def __call__(
        self,
        layer: int,
        start: int,
        expert_ids: NDArray[np.int32],
        weights: NDArray[np.float32],
        prompt: bool,
    ) -> None:
        """Note what tokens `start`... chose in a layer: ids and weights [tokens, k].

        Raises KimiLocalError when the disk is full; the file then ends with the call before.
        """
        end = ', "prompt": true}\n' if prompt else "}\n"
        lines = [
            f'{{"step": {start + token}, "layer": {layer}, "ids": {ids}, '
            f'"weights": [{", ".join(map(_number, row))}]{end}'
            for token, (ids, row) in enumerate(
                zip(expert_ids.tolist(), weights.tolist(), strict=True)
            )
        ]
        self._write("".join(lines))
        self.rows += len(lines)

    @property
    def nbytes(self) -> int:
        """Size of the file so far."""
        return self._end

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_of_file()

    def _end_of_file(self) -> None:
        os.close(self._file)
        if self.rows == 0:  # nothing was chosen: an error came first
            self.path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise KimiLocalError(
                f"{self.path}: {error.strerror or error}; "
                f"the trace ends after {self.rows} lines, which can be replayed"
            ) from None
        self._end += len(text.encode())


def _number(weight: float) -> str:
    """As JSON: nine digits tell every float32, and what is not finite has no word there."""
    return f"{weight:.9g}" if math.isfinite(weight) else "null"
