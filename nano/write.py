"""python -m nano.write RUN MODEL_DIR: the trained model as a checkpoint that the runtime loads."""

import argparse
import sys
from pathlib import Path

from hybrid.errors import CheckpointError
from nano.export.directory import write
from nano.training.state import load, load_vocabulary


def main() -> None:
    """Read the run, write the checkpoint, say how large it is."""
    parser = argparse.ArgumentParser(prog="python -m nano.write", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="what nano.train --out was given")
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="new directory")
    args = parser.parse_args()
    run = load(args.run)
    if run is None:
        raise CheckpointError(f"{args.run} holds no training state; run python -m nano.train first")
    write(args.model, run, load_vocabulary(args.run))
    size = sum(path.stat().st_size for path in args.model.iterdir())
    sys.stdout.write(f"{args.model}: {size / 1e6:.1f} MB after {run.step} steps\n")


if __name__ == "__main__":
    main()
