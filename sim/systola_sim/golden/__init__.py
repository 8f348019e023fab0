"""The arithmetic in numpy: requantization, the LSTM cell, and kernels of the integer graph."""
