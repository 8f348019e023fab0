"""The netlist check: the netlist that synthesis makes of an engine runs a model, and every answer must be right bit by
bit."""
