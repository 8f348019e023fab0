"""The MATMUL unit: weight loader and queue, activation streamer, systolic array, accumulators."""
