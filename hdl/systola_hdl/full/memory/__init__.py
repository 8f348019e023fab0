"""Activation memory and weight memory, and the fetcher of consecutive words."""
