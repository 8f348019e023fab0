"""The MATMUL unit: weight loader, streamer, dot-product array, accumulators."""
