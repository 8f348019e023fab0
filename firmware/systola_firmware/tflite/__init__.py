"""A ``.tflite`` file as checked values, and a reader of one operator with its tensors; shapes that are computed."""
