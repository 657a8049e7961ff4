"""Tools as the model was trained to see them: TypeScript types in a namespace (spec §5.6).

    # Tools

    ## functions
    namespace functions {
    // What it does
    type get_weather = (_: {
      // City name
      city: string,
      // Default: "c"
      unit?: "c" | "f"
    }) => any;
    }

The text is part of the prompt, so every byte counts. A schema that this notation cannot say
gives None, and the template falls back to JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_STEP = "  "
_DEFS = "#/$defs/"
_CONSTRAINTS = {
    "string": ("maxLength", "minLength", "pattern"),
    "number": ("maximum", "minimum"),
    "integer": ("maximum", "minimum"),
    "array": ("maxItems", "minItems"),
}
_IN_UNION = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "{}",
    "array": "Array<any>",
}
_ENUM_VALUES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
}


class UnsayableError(ValueError):
    """The schema has no TypeScript form."""


@dataclass(frozen=True, slots=True)
class _Type:
    """A parsed schema: the comment lines above it, and its text at a given indent."""

    text: Callable[[str], str]
    comments: tuple[str, ...] = ()  # without the slashes


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    required: bool
    type: _Type
    default: Any

    def text(self, indent: str) -> str:
        comments = self.type.comments
        if self.default is not None:
            comments = (*comments, f"Default: {_default_text(self.default)}")
        mark = "" if self.required else "?"
        return f"{_commented(comments, indent)}{indent}{self.name}{mark}: {self.type.text(indent)}"


@dataclass(slots=True)
class _Scope:
    """What `$ref` can point to while one function's parameters are parsed."""

    definitions: dict[str, Any] = field(default_factory=dict)
    refers_to_root: bool = False


def declare_tools(tools: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the declaration of key-sorted `tools`, "" if none is a function, None if unsayable.

    `tools` are plain data of bounded depth, as `messages.normalise_tools` returns them.
    """
    functions = [tool.get("function") for tool in tools if tool.get("type") == "function"]
    try:
        declared = [_function(function) for function in functions if function]
    except UnsayableError:
        return None
    if not declared:
        return ""
    body = "\n".join(declared)
    return f"# Tools\n\n## functions\nnamespace functions {{\n{body}\n}}\n"


def _function(function: Any) -> str:
    function = _mapping(function)
    scope = _Scope()
    fields, parameters = _object(_mapping(function.get("parameters") or {}), scope)
    argument = "parameters" if scope.refers_to_root else parameters.text("")
    parts = []
    if scope.refers_to_root:  # its fields stand in the order of the schema
        parts.append(f"interface parameters {_braced([f.text(_STEP) for f in fields], '')}")
    parts += [_interface(name, schema, scope) for name, schema in [*scope.definitions.items()]]
    parts.append(_commented(_description(function), "")[:-1])
    parts.append(f"type {function.get('name', 'function')} = (_: {argument}) => any;")
    return "\n".join(filter(None, parts))


def _interface(name: str, schema: Any, scope: _Scope) -> str:
    text = _parse(schema, scope).text("")
    comments = _commented(_description(_mapping(schema)), "")
    return f"{comments}interface {name} {text}"


def _parse(schema: Any, scope: _Scope) -> _Type:
    if isinstance(schema, bool):
        return _plain("any" if schema else "null")
    schema = _mapping(schema)
    for key, parse in _BY_KEY:
        if key in schema:
            return parse(schema, scope)
    if schema:
        raise UnsayableError("no type")
    return _plain("any")


def _ref(schema: Mapping[str, Any], scope: _Scope) -> _Type:
    ref = schema["$ref"]
    if ref == "#":
        scope.refers_to_root = True
        return _plain("parameters", schema)
    if not isinstance(ref, str) or not ref.startswith(_DEFS):
        raise UnsayableError("a reference to elsewhere")
    name = ref.split("/")[-1]
    if name not in scope.definitions:
        raise UnsayableError("a reference to nothing")
    return _plain(name, schema)


def _any_of(schema: Mapping[str, Any], scope: _Scope) -> _Type:
    types = [_parse(option, scope) for option in _sequence(schema["anyOf"])]
    return _Type(lambda indent: " | ".join(t.text(indent) for t in types), _description(schema))


def _enum(schema: Mapping[str, Any], _: _Scope) -> _Type:
    values = _sequence(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = _not_null(kind)
    expected = _ENUM_VALUES.get(kind, object) if isinstance(kind, str) else object
    if not all(value is None or isinstance(value, expected) for value in values):
        raise UnsayableError("an enum value of another type")
    return _plain(" | ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in values), schema)


def _not_null(kinds: list[Any]) -> Any:
    if len(kinds) == 2 and "null" in kinds:
        return kinds[1] if kinds[0] == "null" else kinds[0]
    if len(kinds) == 1:
        return kinds[0]
    raise UnsayableError("an enum of several types")


def _typed(schema: Mapping[str, Any], scope: _Scope) -> _Type:
    kind = schema["type"]
    if isinstance(kind, list):
        if not all(isinstance(k, str) and k in _IN_UNION for k in kind):
            raise UnsayableError("a union of unknown types")
        return _plain(" | ".join(_IN_UNION[k] for k in kind), schema)
    if not isinstance(kind, str):
        raise UnsayableError("a type without a name")
    if kind == "object":
        return _object(schema, scope)[1]
    if kind == "array":
        return _array(schema, scope)
    name = "number" if kind == "integer" else kind
    return _Type(lambda _: name, _comments(schema, kind))


def _array(schema: Mapping[str, Any], scope: _Scope) -> _Type:
    item = _parse(schema["items"], scope) if schema.get("items") else _plain("any")

    def text(indent: str) -> str:
        if not item.comments:
            return f"Array<{item.text(indent)}>"
        inner = indent + _STEP
        comments = _commented(item.comments, inner)
        return f"Array<\n{comments}{inner}{item.text(inner)}\n{indent}>"

    return _Type(text, _comments(schema, "array"))


def _object(schema: Mapping[str, Any], scope: _Scope) -> tuple[list[_Field], _Type]:
    """Return the fields in the schema's order, and the type."""
    scope.definitions.update(_mapping(schema.get("$defs") or {}))
    rest = _rest(schema.get("additionalProperties"), scope)
    required = _sequence(schema.get("required", []))
    fields = [
        _Field(name, name in required, _parse(value, scope), _default(value))
        for name, value in _mapping(schema.get("properties", {})).items()
    ]
    ordered = sorted(fields, key=lambda f: (not f.required, f.name))

    def text(indent: str) -> str:
        inner = indent + _STEP
        lines = [f.text(inner) for f in ordered]
        if rest is not None:
            lines.append(f"{inner}[k: string]: {rest.text(inner)}")
        return _braced(lines, indent)

    return fields, _Type(text, _description(schema))


def _rest(schema: Any, scope: _Scope) -> _Type | None:
    """Return the type of additionalProperties; None means that nothing is said about them."""
    if schema is None:
        return None
    return _plain("never") if schema is False else _parse(schema, scope)


_BY_KEY: tuple[tuple[str, Callable[[Mapping[str, Any], _Scope], _Type]], ...] = (
    ("$ref", _ref),
    ("anyOf", _any_of),
    ("enum", _enum),
    ("type", _typed),
)


def _braced(lines: Sequence[str], indent: str) -> str:
    if not lines:
        return "{}"
    body = ",\n".join(lines)
    return f"{{\n{body}\n{indent}}}"


def _commented(comments: Sequence[str], indent: str) -> str:
    return "".join(f"{indent}// {line}\n" if line else "\n" for line in comments)


def _comments(schema: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    bounds = ", ".join(f"{k}: {schema[k]}" for k in _CONSTRAINTS.get(kind, ()) if k in schema)
    return (*_description(schema), bounds) if bounds else _description(schema)


def _description(schema: Mapping[str, Any]) -> tuple[str, ...]:
    text = schema.get("description") or ""
    if not isinstance(text, str):
        raise UnsayableError("a description that is no text")
    return tuple(text.split("\n")) if text else ()


def _default(schema: Any) -> Any:
    return schema.get("default") if isinstance(schema, Mapping) else None


def _default_text(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def _plain(text: str, schema: Mapping[str, Any] | None = None) -> _Type:
    return _Type(lambda _: text, _description(schema) if schema else ())


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnsayableError("not an object")
    return value


def _sequence(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise UnsayableError("not a list")
    return value
