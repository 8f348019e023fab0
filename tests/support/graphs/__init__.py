"""Random integer graphs, made without any model file."""
