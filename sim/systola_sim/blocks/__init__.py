"""Bit-exact models and simulated surroundings of single gateware blocks, named after the block."""
