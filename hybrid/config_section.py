"""Typed, bounded reads from one JSON object of `config.json` or a file like it.

Every refusal names the key with its path and the value seen:

    config.json: text_config.hidden_size is 7168.5; expected an integer from 32 to 65536
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid.errors import ConfigError
from hybrid.model_files import shown


@dataclass(frozen=True, slots=True)
class Section:
    """One object and the path under which errors name its keys ("" at the top)."""

    values: Mapping[str, Any]
    path: str = ""
    file: str = "config.json"

    def label(self, key: str) -> str:
        """Name a key as errors do."""
        return f"{self.file}: {self.path}.{key}" if self.path else f"{self.file}: {key}"

    def refuse(self, key: str, expected: str) -> ConfigError:
        """Make the error for a value that is present but not supported."""
        return ConfigError(f"{self.label(key)} is {shown(self.values.get(key))}; {expected}")

    def has(self, key: str) -> bool:
        """Tell whether a key is present with a value other than null."""
        return self.values.get(key) is not None

    def first(self, *keys: str) -> str:
        """Return the first of several names of one thing that is present, else the first name."""
        return next((key for key in keys if self.has(key)), keys[0])

    def integer(self, key: str, low: int, high: int) -> int:
        """Return an integer from `low` to `high`; true and 3.0 are not integers."""
        value = self._required(key)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(key, f"expected an integer from {low} to {high}")
        return value

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """Return a finite number from `low` to `high`; `default` stands for an absent key."""
        if default is not None and not self.has(key):
            return default
        value = self._required(key)
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self.refuse(key, f"expected a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._required(key)
        if type(value) is not bool:
            raise self.refuse(key, "expected true or false")
        return value

    def section(self, key: str) -> "Section":
        """Return the object under a key."""
        value = self._required(key)
        if not isinstance(value, Mapping):
            raise self.refuse(key, "expected an object")
        return Section(value, f"{self.path}.{key}" if self.path else key, self.file)

    def only(self, key: str, *supported: object) -> None:
        """Refuse a present value that is not one of `supported` (absent and null always pass)."""
        value = self.values.get(key)
        if value is None or any(type(value) is type(s) and value == s for s in supported):
            return
        raise self.refuse(key, f"kimi-local supports only {' or '.join(map(shown, supported))}")

    def exactly(self, key: str, supported: object) -> None:
        """Refuse an absent key, and any value but one."""
        self._required(key)
        self.only(key, supported)

    def absent(self, *keys: str) -> None:
        """Refuse any of these keys if it holds more than null or an empty object or list."""
        for key in keys:
            if self.values.get(key) not in (None, {}, []):
                raise self.refuse(key, "kimi-local does not support it")

    def _required(self, key: str) -> Any:
        if not self.has(key):
            raise ConfigError(f"{self.label(key)} is missing or null; the model needs it")
        return self.values[key]
