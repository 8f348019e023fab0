"""Helpers that tests share: the TFLM oracle, a ``.tflite`` writer, random models, inputs and the paths of model files.

Imported as ``from support.oracle.tflm import Oracle``: ``tests`` is on pytest's ``pythonpath``.
"""
