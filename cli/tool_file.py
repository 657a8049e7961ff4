"""Tool declarations from a JSON file: checked here, so that a slip is one line and not a riddle.

[{"type": "function", "function": {"name": "get_weather", "description": "...",
                                   "parameters": {JSON schema}}}, ...]
"""

import json
import re
from pathlib import Path
from typing import Any

from hybrid.errors import RequestError

ToolList = list[dict[str, Any]]

MOST_BYTES = 1 << 20  # a megabyte of declarations is already a quarter of the context
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read_tools(path: Path) -> ToolList:
    """The declarations in `path`; RequestError names what is wrong and where."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"--tools {path}: {error.strerror}", param="tools") from None
    if len(data) > MOST_BYTES:
        raise RequestError(f"--tools {path}: larger than {MOST_BYTES} bytes", param="tools")
    try:
        tools = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"--tools {path}: not JSON ({error})", param="tools") from None
    return checked(tools, f"--tools {path}")


def checked(tools: Any, where: str) -> ToolList:
    """`tools` if it is a list of declarations; RequestError prefixed by `where` if not."""
    if not isinstance(tools, list) or not tools:
        raise RequestError(f"{where}: must be a non-empty JSON list of tools", param="tools")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _name(tool, f"{where}: tool {index}")
        if name in names:
            raise RequestError(f"{where}: two tools are named {name!r}", param="tools")
        names.add(name)
    return tools


def _name(tool: Any, where: str) -> str:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise RequestError(f'{where} is not {{"type": "function", ...}}', param="tools")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise RequestError(f'{where} has no "function" object', param="tools")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"{where} is named {name!r}; use letters, digits and _.- (64 at most)", param="tools"
        )
    for key, kind in (("parameters", dict), ("description", str)):
        if key in function and not isinstance(function[key], kind):
            raise RequestError(f"{where} ({name}): {key} must be {_KINDS[kind]}", param="tools")
    return name


_KINDS = {dict: "a JSON schema object", str: "a text"}
