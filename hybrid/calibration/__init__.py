"""How fast this machine is, measured with the kernels and sizes that a model will use.

rates = calibrate()                     # some seconds; kept beside the compiled kernels
hardware = hybrid.hardware.probe()      # has them from now on
"""

from hybrid.calibration.measuring import calibrate
from hybrid.hardware.kept_rates import RatesOf, asked, known_rates

__all__ = ["RatesOf", "asked", "calibrate", "known_rates"]
