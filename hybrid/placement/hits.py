"""Which share of a token's experts is found in a tier that holds so many of them.

    hit(share) = 1 - (1 - share^a)^b

fitted to replays of the default cache policy on the one public decode trace of a Kimi model
(Kimi-Linear, 300 tokens, second half; `kimi-local trace replay`), largest difference 0.014:

    share of the experts held    0.0156 0.0234 0.0469 0.0625 0.1133 0.2500 0.3945 0.5000 0.6250
    device over RAM, replayed    0.2195 0.2721 0.3731 0.4183 0.5265 0.7110 0.8245 0.8879 0.9337
    RAM over a file, replayed    0.2456 0.3067 0.4215 0.4746 0.5856 0.7500 0.8584 0.9112 0.9532

K2.5 has more experts to choose from and nobody has published a trace of it: real ones may be less
local. At random the share of hits is the share held; a plan gives that speed as well.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fit:
    """The two exponents."""

    a: float
    b: float

    def __call__(self, share: float) -> float:
        """Share of picks that hit, for a share of the experts held; 0 at 0, 1 at 1, rising."""
        share = min(1.0, max(0.0, share))
        return float(1 - (1 - share**self.a) ** self.b)


DEVICE = Fit(0.475, 1.72)  # promotions bounded: a miss is computed in RAM
RAM = Fit(0.465, 1.92)  # a miss is read and may stay


@dataclass(frozen=True, slots=True)
class Hits:
    """Shares of a token's experts by where they are found; they add up to 1."""

    vram: float
    ram: float
    nvme: float


def hits(records: int, vram: int, ram: int, routing: str) -> Hits:
    """Shares for so many records held by the device and by RAM; RAM and device exclude each other.

    `routing` is "local" or "uniform" (options.py). What is in neither comes from the file.
    """
    held = min(1.0, (vram + ram) / records) if records else 1.0
    on_device = min(held, vram / records) if records else 0.0
    if routing == "local":
        memory = 1.0 if held == 1.0 else RAM(held)
        on_device = min(memory, DEVICE(on_device))
        return Hits(on_device, memory - on_device, 1 - memory)
    return Hits(on_device, held - on_device, 1 - held)
