"""Bytes as people give them: "64GB", "1.5 GiB", "24770000"."""

import re

import click

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_FORM = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)


class ByteSize(click.ParamType[int]):
    """A click type; the value is an int."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parse a size, or fail with what would do."""
        match = _FORM.fullmatch(str(value).strip())
        if match is None or (match[3] and not match[2]):
            self.fail(f"{value!r} is no size; give bytes, or such as 64GB or 1.5GiB", param, ctx)
        units = _BINARY if match[3] else _UNITS
        return int(float(match[1]) * units[match[2].upper()])
