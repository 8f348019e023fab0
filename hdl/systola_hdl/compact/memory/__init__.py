"""Activation memory and weight memory, which holds the program as well; both of single-port blocks."""
