"""The training graph: the mathematics of spec §3 with gradients, for short rows on few cores."""
