"""The integer graph: tensors and layers; rewrites of it (``passes``); inferences side by side (``rebatch``)."""
