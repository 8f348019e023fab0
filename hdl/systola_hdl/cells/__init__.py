"""What the FPGA families have: multipliers and memories, each with the same behaviour on every family."""
