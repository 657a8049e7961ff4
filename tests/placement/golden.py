"""Writes the plans of all machines that come with the package, for test_golden.py to compare.

python -m tests.placement.golden      # after a change that means to change them: read the diff
"""

import json
from pathlib import Path

from hybrid.placement import builtin_config, builtin_machine, machine_names, plan

FOLDER = Path(__file__).parent / "golden"


def planned(name: str) -> str:
    """A machine's plan of K2.5 as it is kept: sorted, one key a line."""
    found = plan(builtin_config(), builtin_machine(name)).to_json()
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write them all; a machine that is no more leaves no file behind."""
    for path in FOLDER.glob("*.json"):
        path.unlink()
    FOLDER.mkdir(exist_ok=True)
    for name in machine_names():
        (FOLDER / f"{name}.json").write_text(planned(name), "utf-8")


if __name__ == "__main__":
    main()
