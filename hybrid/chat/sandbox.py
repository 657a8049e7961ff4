"""A jinja2 environment for templates that nobody has vetted: no code, no files, bounded work.

jinja2's immutable sandbox keeps a template away from Python's internals. It does not stop
`{% for %}` inside `{% for %}`, `x ~ x` in a row, or `'' | center(10**12)`. So one environment
serves one rendering and carries a budget; what a template does is charged against it:

    every loop turn, call, filter, comparison, item of a literal ...... STEP
    text and lists that go in or come out ............................. and their length
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

# fmt: off
# What is linear in its input.
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items",
    "last", "length", "list", "lower", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "sort", "title", "trim", "unique", "upper",
)
_TESTS = (
    "!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "divisibleby", "eq", "equalto",
    "even", "false", "float", "ge", "gt", "integer", "iterable", "le", "lower", "lt", "mapping",
    "ne", "none", "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper",
)
_TEXT_METHODS = (
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit",
    "islower", "isnumeric", "isspace", "isupper", "join", "lower", "lstrip", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "title", "upper",
)
# fmt: on
_FROM_THE_COMPILER = ("_loop_vars", "_block_vars")  # jinja2 adds them to calls inside loops
_METHODS: dict[type, tuple[str, ...]] = {
    str: _TEXT_METHODS,
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
}
STEP = 100  # one step of the interpreter takes as long as about so many characters
_RANGE_LIMIT = 100_000
_DATE_FORMAT_LIMIT = 64
_INT_BITS_LIMIT = 64


class TemplateRefusalError(TemplateError):
    """The template itself called raise_exception: it cannot say this conversation."""


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """One rendering's environment. SecurityError when the budget is spent or a thing refused."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, budget: int) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalize,
            extensions=["jinja2.ext.loopcontrols"],
        )
        self.left = budget
        self.filters = {name: FILTERS[name] for name in _FILTERS}
        self.filters |= {
            "join": self.joined,
            "map": self.attribute_of_each,
            "replace": self.replaced,
            "safe": self.as_text,  # nothing is escaped, so nothing needs to be marked
            "string": self.as_text,
            "tojson": self.to_json,
        }
        self.tests = {name: TESTS[name] for name in _TESTS}
        self.globals = {
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _raise_exception,
            "range": self.bounded_range,
            "strftime_now": _strftime_now,
        }
        self._own = (dict, Namespace, _raise_exception, _strftime_now)

    def charge(self, work: int) -> None:
        """Take one step and `work` more from the budget."""
        self.left -= STEP + work
        if self.left < 0:
            raise SecurityError("it does more work than a conversation of this length needs")

    def charged(self, value: Any) -> Any:
        """Charge the length of `value` and return it."""
        self.charge(len(value) if isinstance(value, str | list | tuple | dict | range) else 0)
        return value

    def charged_tree(self, value: Any) -> Any:
        """Charge everything inside `value`, shared parts as often as they occur; return it."""
        self.charge(len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict):
            for key, item in value.items():
                self.charged_tree(key)
                self.charged_tree(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self.charged_tree(item)
        elif not isinstance(value, str | int | float | Undefined | None):
            raise SecurityError(f"it takes a {type(value).__name__} for data")
        return value

    def as_text(self, value: Any) -> str:
        """Return str(value) for plain data."""
        return str(value if isinstance(value, str) else self.charged_tree(value))

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of the template or of a macro."""
        pieces = list(parts)
        self.charge(sum(map(len, pieces)))
        return "".join(pieces)

    def concatenated(self, *parts: Any) -> str:
        """Do what `a ~ b` does."""
        return self.concat(map(self.as_text, parts))

    def joined(self, items: Iterable[Any], d: str = "", attribute: Any = None) -> str:
        """Do what `items | join(d)` does."""
        chosen = items if attribute is None else self.attribute_of_each(items, attribute)
        pieces = [self.as_text(item) for item in chosen]
        self.charge(sum(map(len, pieces)) + len(pieces) * len(d))
        return d.join(pieces)

    def attribute_of_each(self, items: Iterable[Any], attribute: str | int) -> list[Any]:
        """Do what `items | map(attribute=...)` does; `map` by the name of a filter is refused."""
        return [self.getitem(item, attribute) for item in items]

    def replaced(self, text: Any, old: str, new: str, count: int = -1) -> str:
        """Do what `text | replace(old, new)` does."""
        before = self.as_text(text)
        self.charge(len(before) + before.count(old) * len(new))
        return before.replace(old, new, count)

    def to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Write JSON as transformers' chat templates do: nothing escaped for HTML."""
        if indent is not None and not 0 <= indent <= 8:
            raise SecurityError(f"tojson with indent {indent}")
        if separators is not None and max(map(len, separators)) > 8:
            raise SecurityError("tojson with long separators")
        value = self.charged_tree(value)
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def bounded_range(self, *bounds: int) -> range:
        """Return range(*bounds) of at most 100,000 numbers."""
        numbers = range(*bounds)
        if len(numbers) > _RANGE_LIMIT:
            raise SecurityError(f"range of {len(numbers)} numbers")
        return numbers

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Add within the budget; multiply and take remainders of small numbers only."""
        if operator == "+":
            return self.charged_tree(left + right)
        if operator == "**" or not (_is_small_number(left) and _is_small_number(right)):
            raise SecurityError(f"'{operator}' of these values")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a method of plain data, a macro or one of our functions; nothing else."""
        for value in args:
            __self.charged(value)
        if isinstance(__obj, BuiltinMethodType):
            given = {key: kwargs[key] for key in kwargs if key not in _FROM_THE_COMPILER}
            return __self._call_method(__obj, args, given)
        if not __self._is_known(__obj):
            raise SecurityError(f"it calls a {type(__obj).__name__}")
        value = super().call(__context, __obj, *args, **kwargs)
        return __self.charged_tree(value) if isinstance(value, dict) else __self.charged(value)

    def _is_known(self, obj: Any) -> bool:
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, LoopContext) or obj.__self__ is self
        return obj in self._own or isinstance(obj, Macro | LoopContext | Undefined)

    def _call_method(
        self, method: BuiltinMethodType, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        owner: Any = method.__self__
        name = method.__name__
        if name not in _METHODS.get(type(owner), ()):
            raise SecurityError(f"it calls .{name}() of a {type(owner).__name__}")
        self.charged(owner)
        if name == "join":
            return self.joined(args[0], owner)
        if name == "replace":
            return self.replaced(owner, *args, **kwargs)
        return self.charged(method(*args, **kwargs))


@pass_context  # a function of the context is never folded into the compiled template
def _finalize(context: Context, value: Any) -> str:
    environment = context.environment
    if not isinstance(environment, MeteredEnvironment):
        raise SecurityError("it runs outside its environment")
    return environment.as_text(value)


def _is_small_number(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _INT_BITS_LIMIT
    return isinstance(value, float)


def _raise_exception(message: str) -> None:
    raise TemplateRefusalError(str(message))


def _strftime_now(date_format: str) -> str:
    return datetime.now().strftime(str(date_format)[:_DATE_FORMAT_LIMIT])
