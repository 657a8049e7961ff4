"""What the packers are told: a matrix of bf16 bits with any strides, and where its tiles go."""

from hybrid.cpu_dense.records import record

PACK, pack_at = record("source row_step column_step rows columns target")
