"""The LSTM path of the POST unit: its reads, the activation functions, and the cell in two sizes."""
