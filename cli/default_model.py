"""The model when none is named: a tiny random checkpoint, made once in the cache directory."""

from pathlib import Path

from cli.settings import Settings
from hybrid.errors import CheckpointError, KimiLocalError

_VERSION = "tiny-1"  # raise when write_tiny's output changes
NOTICE = "a tiny random model that answers with noise; --model DIR names a real one"


def default_model(settings: Settings) -> Path:
    """The directory of the tiny checkpoint, written on first use."""
    from hybrid.tiny import write_tiny  # numpy and safetensors: not before they are needed

    directory = settings.cache_dir / _VERSION
    if not directory.exists():
        try:
            write_tiny(directory)
        except CheckpointError as error:  # not a fault of a model: the disk is full or read-only
            raise KimiLocalError(f"the built-in tiny model: {error}") from None
    return directory
