"""What is wrong with this machine, or with a model on it, and the command that mends it."""

from hybrid.doctor.check import Check
from hybrid.doctor.examination import examine
from hybrid.doctor.gaps import explain

__all__ = ["Check", "examine", "explain"]
