"""How much slower either side of a split is than its costs say, from the layers so far.

Rates come from a calibration, or from nothing but the parts' promises; what else the machine does
meanwhile nobody knows. So each layer's measured seconds are set against the predicted ones, and the
next split counts with the decayed ratio.
"""

from dataclasses import dataclass

KEEPS = 0.8  # of the ratio so far, at each layer
LEAST_S = 1e-3  # a side predicted to take less says nothing: that is waking threads
MOST = 16.0  # ratios beyond this, or below its inverse, are accidents


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured over predicted seconds, decayed."""

    device: float = 1.0
    cpu: float = 1.0

    @property
    def pair(self) -> tuple[float, float]:
        """As split.split takes it."""
        return self.device, self.cpu


def corrected(
    pace: Pace, predicted: tuple[float, float], measured: tuple[float | None, float | None]
) -> Pace:
    """The pace after a layer.

    `predicted` seconds of device and CPU with `pace` in them, as the split said; `measured` ones,
    None for a side that nobody timed.
    """
    return Pace(
        _side(pace.device, predicted[0], measured[0]),
        _side(pace.cpu, predicted[1], measured[1]),
    )


def _side(ratio: float, predicted: float, measured: float | None) -> float:
    plain = predicted / ratio
    if measured is None or not LEAST_S <= plain < float("inf"):
        return ratio
    found = min(MOST, max(1 / MOST, measured / plain))
    return KEEPS * ratio + (1 - KEEPS) * found
