"""What compiled code is told: records of addresses, sizes and a few float constants.

A record lies in numpy memory, is filled once when a model is loaded, and is changed by the compiled
verbs only where a call differs from the last (tokens, start, x, out). Compiled functions take its
address; `at` in this package is always an address (intp) in bytes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, types

from hybrid.cpu_experts import compiled
from hybrid.cpu_experts.native import pointer_to

UNIT = types.void(types.intp, types.intp, types.intp)  # (record, unit, worker)


def record(words: str, reals: str = "", **nested: Any) -> tuple[np.dtype[Any], Any]:
    """A record type of int64 `words`, float32 `reals` and other records, and the cast to it."""
    fields: list[tuple[str, Any]] = [(name, np.int64) for name in words.split()]
    fields += list(nested.items())
    fields += [(name, np.float32) for name in reals.split()]
    dtype = np.dtype(fields, align=True)
    return dtype, pointer_to(from_dtype(dtype))


def offset(dtype: np.dtype[Any], name: str) -> int:
    """Where a nested record lies in its parent, in bytes."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def unit_address(name: str, body: Callable[..., Any], signature: Any = UNIT) -> int:
    """Compile `body` once: what the pool calls, or another compiled function."""
    return int(_callback(name, body, signature).address)


@cache
def _callback(name: str, body: Callable[..., Any], signature: Any) -> Any:
    return compiled.callback(f"dense-{name}", signature, body)


def entry(name: str, signature: Any, body: Callable[..., Any]) -> Any:
    """Compile what Python calls: one call a verb."""
    return compiled.function(f"dense-{name}", signature, body)
