"""Benches of gateware blocks, and what they need: builds, simulated memories, planted faults."""
