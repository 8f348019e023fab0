"""Transaction-layer packets: their headers and streams, what takes them apart and what makes them."""
