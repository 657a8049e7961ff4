"""What goes where on a machine and how fast it will be: `plan`, arithmetic and nothing else.

    options.py   what was asked        needs.py   what the model takes
    rates.py     how fast the parts    hits.py    which share of the experts is found where
    share.py     who gets which bytes  speed.py   seconds of a token, of a prompt
    cards.py     the GPUs of a machine picks.py   how many tokens ask for an expert
    advice.py    what would help       planning.py  all of it
    streaming.py what the runtime's split of a prompt counts with
    builtin.py   machines and the model's shape as data, for a plan without either

Nothing is measured, no weights are read and neither torch nor numba is imported.
"""

from hybrid.placement.builtin import MODEL, builtin_config, builtin_machine, machine_names
from hybrid.placement.options import PlanOptions
from hybrid.placement.planning import Plan, plan
from hybrid.placement.streaming import streaming_costs

__all__ = [
    "MODEL",
    "Plan",
    "PlanOptions",
    "builtin_config",
    "builtin_machine",
    "machine_names",
    "plan",
    "streaming_costs",
]
