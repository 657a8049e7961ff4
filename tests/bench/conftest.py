"""The scripts of bench/ import their neighbours by name, as they do when they are run."""

import sys

from tests.contracts.files import ROOT

sys.path.insert(0, str(ROOT / "bench"))
