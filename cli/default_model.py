"""The model when none is named: a tiny random checkpoint, made once in the cache directory.

What lies there may have been damaged since: it is opened, and made again where that fails.
"""

from collections.abc import Callable
from pathlib import Path

from cli.settings import Settings
from hybrid.errors import CheckpointError, KimiLocalError

_VERSION = "tiny-1"  # raise when write_tiny's output changes
NOTICE = "a tiny random model that answers with noise; --model DIR names a real one"
_ADVICE = "XDG_CACHE_HOME gives it another place, --model DIR names another model"


def default_model(settings: Settings, say: Callable[[str, str], None]) -> Path:
    """The directory of the tiny checkpoint, written on first use; `say` tells of a second one."""
    from hybrid.tiny import write_tiny  # numpy and safetensors: not before they are needed

    directory = settings.cache_dir / _VERSION
    if directory.exists():
        fault = _fault(directory)
        if fault is None:
            return directory
        say(f"the built-in tiny model is damaged and is made again: {fault}", "warn")
    try:
        write_tiny(directory)
    except CheckpointError as error:  # no fault of a model: disk full, read-only, not ours
        raise KimiLocalError(f"the built-in tiny model: {error} ({_ADVICE})") from None
    return directory


def _fault(directory: Path) -> str | None:
    """What would keep the checkpoint from loading, as far as headers and sizes tell."""
    from hybrid.chat.template import ChatTemplate
    from hybrid.chat.tokenizer import Tokenizer
    from hybrid.checkpoint import Checkpoint
    from hybrid.config import ModelConfig

    try:
        with Checkpoint.open(directory, ModelConfig.from_dir(directory)):
            Tokenizer.from_dir(directory)
            ChatTemplate.from_dir(directory)
    except KimiLocalError as error:
        return str(error)
    return None
