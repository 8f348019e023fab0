"""The netlist check: what synthesis has made of an engine runs a model and answers bit by bit as it should."""
