"""What the environment says, read once: nothing else in the project looks at it.

XDG_STATE_HOME   sessions and input history     default ~/.local/state
KIMI_LOCAL_MODEL the model directory when --model is not given
NO_COLOR         any text: no colour
TERM=dumb        no colour and no cursor movement
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hybrid.errors import ConfigError

APP = "kimi-local"
COMPLETION = "_KIMI_LOCAL_COMPLETE"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where this user's files live, and what the terminal may be shown.

    Directories are resolved when asked for: not every command needs one, or a home to have it in.
    """

    state_home: str
    model: str
    colour: bool
    dumb_terminal: bool
    completion: str = ""

    @property
    def state_dir(self) -> Path:
        """Sessions and history; ConfigError where there is no home."""
        return _xdg(self.state_home, "XDG_STATE_HOME", ".local/state")

    @property
    def model_dir(self) -> Path | None:
        """The model that the environment names."""
        return user_path(self.model, "KIMI_LOCAL_MODEL: ") if self.model else None

    @property
    def sessions_dir(self) -> Path:
        """One JSON file a session."""
        return self.state_dir / "sessions"

    @property
    def history_file(self) -> Path:
        """What was typed, over all runs."""
        return self.state_dir / "history.jsonl"


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ`, or from this process's own environment."""
    env = os.environ if environ is None else environ  # noqa: TID251 - the one place
    dumb = env.get("TERM", "") == "dumb"
    return Settings(
        state_home=env.get("XDG_STATE_HOME", ""),
        model=env.get("KIMI_LOCAL_MODEL", ""),
        colour=not env.get("NO_COLOR") and not dumb,
        dumb_terminal=dumb,
        completion=env.get(COMPLETION, ""),
    )


def user_path(text: str, source: str = "") -> Path:
    """The path that a user wrote, perhaps with `~`; ConfigError for a home that is not known."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{source}{text}: no such home directory; write the path out") from None


def _xdg(named: str, variable: str, fallback: str) -> Path:
    """The XDG rule: a relative path in the variable counts as unset."""
    if Path(named).is_absolute():
        return Path(named) / APP
    try:
        return Path.home() / fallback / APP
    except RuntimeError:
        raise ConfigError(f"this user has no home directory; set HOME or {variable}") from None
