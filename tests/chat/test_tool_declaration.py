"""The declaration byte for byte: the vectors of spec §5.6, then each rule alone."""

import pytest

from hybrid.chat.messages import DEPTH_LIMIT, normalise_tools
from hybrid.chat.tool_declaration import declare_tools
from hybrid.errors import RequestError


def tool(name: str, parameters: object = None, description: object = None) -> dict[str, object]:
    function: dict[str, object] = {"name": name}
    if parameters is not None:
        function["parameters"] = parameters
    if description is not None:
        function["description"] = description
    return {"type": "function", "function": function}


def declare(*tools: dict[str, object]) -> str | None:
    return declare_tools(normalise_tools(list(tools)))


def field(schema: object, *, required: bool = True) -> str:
    """The text of one field `x` with this schema."""
    parameters = {"type": "object", "properties": {"x": schema}}
    if required:
        parameters["required"] = ["x"]
    text = declare(tool("f", parameters))
    assert text is not None
    return text.split("(_: {\n")[1].split("\n}) => any;")[0]


WEATHER = tool(
    "get_weather",
    {
        "type": "object",
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "City name"},
            "unit": {"enum": ["c", "f"], "description": "Unit", "default": "c"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 3},
        },
    },
    "Get weather information. Call this tool when the user needs to get weather information",
)
VECTOR_A = """# Tools

## functions
namespace functions {
// Get weather information. Call this tool when the user needs to get weather information
type get_weather = (_: {
  // City name
  city: string,
  // maximum: 7, minimum: 1
  // Default: 3
  days?: number,
  // Unit
  // Default: "c"
  unit?: "c" | "f"
}) => any;
}
"""
B = tool(
    "f",
    {
        "type": "object",
        "required": ["e", "a"],
        "properties": {
            "a": {
                "type": "array",
                "items": {"type": "string", "description": "item"},
                "minItems": 1,
            },
            "b": {"type": ["string", "null"]},
            "c": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "d": {
                "type": "object",
                "properties": {"x": {"type": "number"}},
                "additionalProperties": False,
            },
            "e": {"$ref": "#/$defs/N"},
        },
        "$defs": {
            "N": {
                "type": "object",
                "description": "node",
                "properties": {"v": {"type": "boolean", "default": True}},
            }
        },
    },
    "line1\n\nline2",
)
VECTOR_B = (
    "# Tools\n\n## functions\nnamespace functions {\n// node\ninterface N {\n  // Default: True\n"
    "  v?: boolean\n}\n// line1\n\n// line2\ntype f = (_: {\n  // minItems: 1\n  a: Array<\n"
    "    // item\n    string\n  >,\n  e: N,\n  b?: string | null,\n  c?: number | null,\n  d?: {\n"
    "    x?: number,\n    [k: string]: never\n  }\n}) => any;\ntype g = (_: {}) => any;\n}\n"
)
C = tool(
    "t",
    {
        "type": "object",
        "required": ["s"],
        "properties": {
            "s": {"type": "string", "pattern": "^a$", "maxLength": 5},
            "child": {"$ref": "#"},
        },
    },
)
VECTOR_C = (
    "# Tools\n\n## functions\nnamespace functions {\ninterface parameters {\n"
    "  child?: parameters,\n  // maxLength: 5, pattern: ^a$\n  s: string\n}\n"
    "type t = (_: parameters) => any;\n}\n"
)


def test_vector_a():
    assert declare(WEATHER) == VECTOR_A


def test_vector_b():
    assert declare(B, tool("g")) == VECTOR_B


def test_vector_c():
    assert declare(C) == VECTOR_C


def test_unsorted_keys_would_be_caught():
    """The order of `properties` shows in vector C, where the root is an interface."""
    assert declare_tools([C]) != VECTOR_C


FIELDS = {
    "integer": ({"type": "integer"}, "  x: number"),
    "number": ({"type": "number"}, "  x: number"),
    "boolean": ({"type": "boolean"}, "  x: boolean"),
    "null": ({"type": "null"}, "  x: null"),
    "made-up scalar": ({"type": "date"}, "  x: date"),
    "any": ({}, "  x: any"),
    "true": (True, "  x: any"),
    "false": (False, "  x: null"),
    "array": ({"type": "array"}, "  x: Array<any>"),
    "array of arrays": (
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "  x: Array<Array<number>>",
    ),
    "array with both bounds": (
        {"type": "array", "maxItems": 3, "minItems": 1},
        "  // maxItems: 3, minItems: 1\n  x: Array<any>",
    ),
    "union": (
        {"type": ["object", "array", "integer", "null"]},
        "  x: {} | Array<any> | number | null",
    ),
    "enum of numbers": ({"enum": [1, 2.5, True, None]}, "  x: 1 | 2.5 | True | None"),
    "enum with quotes": ({"enum": ['a"b', "c\\d"]}, '  x: "a"b" | "c\\d"'),
    "enum and null": ({"enum": ["a", None], "type": ["null", "string"]}, '  x: "a" | None'),
    "anyOf": (
        {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"y": {}}}]},
        "  x: string | {\n    y?: any\n  }",
    ),
    "empty object": ({"type": "object"}, "  x: {}"),
    "open object": (
        {"type": "object", "additionalProperties": True},
        "  x: {\n    [k: string]: any\n  }",
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        "  x: {\n    [k: string]: number\n  }",
    ),
    "description of several lines": (
        {"type": "string", "description": "a\n\nb"},
        "  // a\n\n  // b\n  x: string",
    ),
    "constraints after the description": (
        {"type": "string", "description": "a", "minLength": 2},
        "  // a\n  // minLength: 2\n  x: string",
    ),
    "default list": (
        {"type": "array", "default": ["ä", 1]},
        '  // Default: ["ä", 1]\n  x: Array<any>',
    ),
    "default false": ({"type": "boolean", "default": False}, "  // Default: False\n  x: boolean"),
    "default zero": ({"type": "number", "default": 0.0}, "  // Default: 0.0\n  x: number"),
    "bounds of another type": ({"type": "string", "maximum": 3}, "  x: string"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_field(name):
    schema, text = FIELDS[name]
    assert field(schema) == text


UNSAYABLE = {
    "no type": {"description": "x"},
    "type is a number": {"type": 5},
    "union of unknown types": {"type": ["string", "date"]},
    "ref to elsewhere": {"$ref": "https://example.com/schema"},
    "ref to nothing": {"$ref": "#/$defs/Missing"},
    "ref is a number": {"$ref": 5},
    "schema is a list": [],
    "enum is a string": {"enum": "ab"},
    "enum value of another type": {"enum": ["a"], "type": "integer"},
    "enum of several types": {"enum": ["a"], "type": ["string", "integer"]},
    "anyOf is an object": {"anyOf": {}},
    "properties is a list": {"type": "object", "properties": []},
    "required is a string": {"type": "object", "required": "x"},
    "additionalProperties is a string": {"type": "object", "additionalProperties": "no"},
    "$defs is a list": {"type": "object", "$defs": [1]},
    "description is a number": {"type": "string", "description": 5},
}


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_typescript_cannot_say_is_none(name):
    parameters = {"type": "object", "properties": {"x": UNSAYABLE[name]}}
    assert declare(tool("f", parameters)) is None


def test_a_definition_is_known_to_what_comes_after_it():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    text = declare(tool("f", {"type": "object", "$defs": {"Node": node}, "properties": {}}))
    assert text is not None
    assert "interface Node {\n  next?: Node\n}\n" in text


def test_other_tools_are_left_out():
    assert declare({"type": "_plugin", "name": "x"}) == ""
    assert declare() == ""


def test_parameters_may_be_missing_or_null():
    assert declare(tool("g")) == declare(tool("g", {}))
    assert "type g = (_: {}) => any;" in str(declare(tool("g")))


def test_hostile_depth_is_refused():
    schema: dict[str, object] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestError, match=f"deeper than {DEPTH_LIMIT}") as caught:
        normalise_tools([tool("f", {"type": "object", "properties": {"x": schema}})])
    assert caught.value.param == "tools[0]"
