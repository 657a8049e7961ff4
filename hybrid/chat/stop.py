"""Stop strings in a stream: text is released as soon as it can no longer be part of one."""

from collections.abc import Sequence


class StopStrings:
    """Watches text piece by piece; how it is cut into pieces makes no difference.

    The stop string that is complete first ends the text; of two that are complete at the same
    character, the longer one. What stood before it is safe, it and all behind it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted({stop for stop in stops if stop}, key=len, reverse=True)
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)  # characters of each stop that the text ends with
        self._held = ""
        self.hit: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """Return the text that is now safe, and the stop string once one is complete."""
        if self.hit is not None:
            return "", self.hit
        start = len(self._held)
        self._held += text
        for position in range(start, len(self._held)):
            self._advance(self._held[position])
            if self.hit is not None:
                safe = self._held[: position + 1 - len(self.hit)]
                self._held = ""
                return safe, self.hit
        return self._release(max(self._matched, default=0)), None

    def flush(self) -> str:
        """Return what was held back: the text has ended without a stop string."""
        self._matched = [0] * len(self._stops)
        return self._release(0)

    def _release(self, keep: int) -> str:
        safe = self._held[: len(self._held) - keep]
        self._held = self._held[len(safe) :]
        return safe

    def _advance(self, char: str) -> None:
        for which, (stop, borders) in enumerate(zip(self._stops, self._borders, strict=True)):
            matched = self._matched[which]
            while matched and stop[matched] != char:
                matched = borders[matched - 1]
            matched += stop[matched] == char
            self._matched[which] = matched
            if matched == len(stop):
                self.hit = stop
                return


def _borders(stop: str) -> list[int]:
    """Return, for each prefix of `stop`, how long its longest border is (Knuth, Morris, Pratt)."""
    borders = [0] * len(stop)
    for end in range(1, len(stop)):
        border = borders[end - 1]
        while border and stop[border] != stop[end]:
            border = borders[border - 1]
        borders[end] = border + (stop[border] == stop[end])
    return borders
