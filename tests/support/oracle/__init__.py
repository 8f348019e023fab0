"""Judges: TensorFlow Lite Micro itself, and naive evaluations that share nothing with the packages."""
