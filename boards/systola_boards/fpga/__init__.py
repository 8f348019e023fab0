"""The FPGAs of the boards: what they have, their clocks and PLLs, the floorplan of their hard blocks."""
