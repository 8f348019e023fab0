"""From a ``.tflite`` file to the integer graph: the file as checked values, and an importer for each operator."""
