"""Model files: a ``.tflite`` writer, random models, inputs, and where the real ones are."""
