"""Every error a user can meet. The text says what was seen and what to do next.

KimiLocalError            exit 1   HTTP 500
  ConfigError             exit 2   HTTP 400   a setting or config.json is missing or wrong
  CheckpointError         exit 2   HTTP 500   a model file is absent, short, hostile or foreign
  PlacementError          exit 3   HTTP 503   this machine cannot hold or run what was asked
  KernelError             exit 4   HTTP 500   compiled code is wrong here, or a worker died
  RequestError            exit 2   HTTP 400   we do not do what the request asks; names the field
    ContextTooLongError   exit 2   HTTP 400   prompt and answer exceed the KV cache
"""

from typing import ClassVar


class KimiLocalError(Exception):
    """Root of the tree: caught at the outermost edge, and only there."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class ConfigError(KimiLocalError):
    """A setting or `config.json` is missing, unknown or out of range."""

    exit_code = 2
    http_status = 400


class CheckpointError(KimiLocalError):
    """A model file is absent, short, hostile or of another format."""

    exit_code = 2


class PlacementError(KimiLocalError):
    """This machine cannot hold or run what was asked."""

    exit_code = 3
    http_status = 503


class KernelError(KimiLocalError):
    """Compiled code disagrees with the reference, or a worker thread died."""

    exit_code = 4


class RequestError(KimiLocalError):
    """The request asks for something we do not do; `param` names the field."""

    exit_code = 2
    http_status = 400

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooLongError(RequestError):
    """Prompt and answer need more positions than the KV cache holds."""

    def __init__(self, tokens: int, limit: int, maximum: int | None = None) -> None:
        """`limit` positions were reserved; the model itself allows `maximum`."""
        if maximum is not None and tokens >= maximum:
            advice = f"the model reads at most {maximum}; shorten it"
        else:
            advice = f"shorten it or load the model with kv_tokens={tokens + 1} or more"
        super().__init__(
            f"the prompt is {tokens} tokens but the KV cache holds {limit}; {advice}",
            param="messages",
        )
        self.tokens = tokens
        self.limit = limit
        self.maximum = maximum
