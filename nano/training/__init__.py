"""From batches to weights: masters and what the graph sees of them, optimiser, schedule, loop."""
