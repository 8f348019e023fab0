"""The POST unit: drain, parameters, tables, vector, requantizer, output stage; recurrent layers in ``lstm``."""
