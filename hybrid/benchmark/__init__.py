"""How fast a loaded model is, in llama-bench's terms, and whether two runs differ.

Importing this loads no model and draws nothing; `cli.bench` prints what it finds.
"""

from hybrid.benchmark.cases import KINDS, Case, Kind, all_cases
from hybrid.benchmark.comparison import Compared, Comparison, compare
from hybrid.benchmark.head import file_head
from hybrid.benchmark.heat import Heat
from hybrid.benchmark.prediction import Predict, Predicted, predictor
from hybrid.benchmark.result_file import Results, read_results
from hybrid.benchmark.row import Row, to_json, use_tiers
from hybrid.benchmark.running import Run, rows
from hybrid.benchmark.sample import Asked, Feed, Sample

__all__ = [
    "KINDS",
    "Asked",
    "Case",
    "Compared",
    "Comparison",
    "Feed",
    "Heat",
    "Kind",
    "Predict",
    "Predicted",
    "Results",
    "Row",
    "Run",
    "Sample",
    "all_cases",
    "compare",
    "file_head",
    "predictor",
    "read_results",
    "rows",
    "to_json",
    "use_tiers",
]
