"""What a model costs on a device: records by the hardware's counters, profiles of layers, the synthetic LSTM."""
