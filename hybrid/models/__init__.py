"""Checkpoints that come with the program: kimi-nano/, as `python -m nano.write` wrote it."""

from pathlib import Path

KIMI_NANO = Path(__file__).parent / "kimi-nano"
