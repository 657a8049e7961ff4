"""The checkpoint's own chat template, or ours where it ships none, as one flat text.

A template is a program that came with a download: it runs in `sandbox.py` under a budget that
grows with the conversation, and whatever goes wrong in it ends in one line of CheckpointError.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import CodeType
from typing import Any

from jinja2.exceptions import TemplateSyntaxError

from hybrid.chat.metering import metered_tree
from hybrid.chat.sandbox import MeteredEnvironment, TemplateRefusalError
from hybrid.chat.vocabulary import CONFIG_NAME, read_tokenizer_config
from hybrid.errors import CheckpointError, RequestError
from hybrid.model_files import read_model_file

TEMPLATE_NAME = "chat_template.jinja"
SOURCE_BYTES_LIMIT = 256 << 10  # Kimi's own has about 5 KB
BASE_BUDGET = 20_000_000  # ends a runaway template within seconds
BUDGET_PER_UNIT = 500  # of the conversation's size; our own template spends 4 to 210


class ChatTemplate:
    """A compiled template. Rendering is a pure function of its arguments (and of the date)."""

    def __init__(self, source: str, origin: str) -> None:
        self._origin = origin
        self._code = _compile(source, origin)

    @classmethod
    def from_dir(cls, model_dir: str | Path) -> "ChatTemplate":
        """Read `chat_template.jinja`, else the key in tokenizer_config.json, else use ours."""
        directory = Path(model_dir)
        path = directory / TEMPLATE_NAME
        if path.exists() or path.is_symlink():
            return cls(_read_source(directory), str(path))
        config_path = directory / CONFIG_NAME
        if config_path.exists():
            source = read_tokenizer_config(directory).get("chat_template")
            if isinstance(source, str):
                return cls(source, f"chat_template in {config_path}")
        return cls.built_in()

    @classmethod
    def built_in(cls) -> "ChatTemplate":
        """Return our own template of Kimi's grammar (spec §5.1-5.6)."""
        return cls(built_in_source(), "the built-in chat template")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tools_ts_str: str | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the conversation as the template writes it.

        `messages` and `tools` are plain data as `messages.normalise` makes them. The text mixes
        control tokens with what users wrote; `prompt.encode_chat` is what tells them apart.
        """
        variables = {
            "messages": messages,
            "thinking": thinking,
            "tools": tools or None,
            "tools_ts_str": tools_ts_str,
            "add_generation_prompt": add_generation_prompt,
        }
        environment = MeteredEnvironment(BASE_BUDGET + BUDGET_PER_UNIT * _size(variables))
        try:
            template = environment.template_class.from_code(
                environment, self._code, environment.make_globals(None)
            )
            return template.render(variables)
        except TemplateRefusalError as error:
            raise RequestError(_one_line(error), param="messages") from error
        except Exception as error:  # a stranger's program can raise anything
            raise CheckpointError(f"{self._origin} failed: {_one_line(error)}") from error


def built_in_source() -> str:
    """Return the text of the template that ships with this package."""
    return resources.files("hybrid.chat").joinpath(TEMPLATE_NAME).read_text("utf-8")


def _read_source(model_dir: Path) -> str:
    data = read_model_file(model_dir, TEMPLATE_NAME, SOURCE_BYTES_LIMIT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{model_dir / TEMPLATE_NAME} is not UTF-8") from error


def _compile(source: str, origin: str) -> CodeType:
    if len(source) > SOURCE_BYTES_LIMIT:
        raise CheckpointError(f"{origin} has {len(source)} characters; a chat template is smaller")
    environment = MeteredEnvironment(BASE_BUDGET)
    try:
        return environment.compile(metered_tree(environment, source), filename="<chat template>")
    except TemplateSyntaxError as error:
        where = f"{origin} line {error.lineno}"
        raise CheckpointError(f"{where} is not a chat template: {_one_line(error)}") from error
    except Exception as error:  # from jinja2 or from Python's own compiler
        raise CheckpointError(f"{origin} is not a chat template: {_one_line(error)}") from error


def _size(value: Any) -> int:
    """Count what a template can walk over: characters, keys and items."""
    if isinstance(value, str):
        return 1 + len(value)
    if isinstance(value, Mapping):
        return 1 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 1 + sum(map(_size, value))
    return 1


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200].encode("ascii", "backslashreplace").decode()
    return text or type(error).__name__
