"""What the environment says, read once: nothing else in the project looks at it.

XDG_STATE_HOME   sessions and input history     default ~/.local/state
XDG_CACHE_HOME   the built-in tiny model        default ~/.cache
KIMI_LOCAL_MODEL the model directory when --model is not given
NO_COLOR         any text: no colour
TERM=dumb        no colour and no cursor movement
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP = "kimi-local"
COMPLETION = "_KIMI_LOCAL_COMPLETE"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where this user's files live, and what the terminal may be shown."""

    state_dir: Path
    cache_dir: Path
    model_dir: Path | None
    colour: bool
    dumb_terminal: bool
    completion: str = ""

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
    model = env.get("KIMI_LOCAL_MODEL", "")
    dumb = env.get("TERM", "") == "dumb"
    return Settings(
        state_dir=_xdg(env, "XDG_STATE_HOME", ".local/state"),
        cache_dir=_xdg(env, "XDG_CACHE_HOME", ".cache"),
        model_dir=Path(model).expanduser() if model else None,
        colour=not env.get("NO_COLOR") and not dumb,
        dumb_terminal=dumb,
        completion=env.get(COMPLETION, ""),
    )


def _xdg(env: Mapping[str, str], name: str, fallback: str) -> Path:
    """The XDG rule: a relative path in the variable counts as unset."""
    named = Path(env.get(name, ""))
    return (named if named.is_absolute() else Path.home() / fallback) / APP
