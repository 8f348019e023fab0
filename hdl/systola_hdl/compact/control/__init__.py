"""The control plane: sequencer, registers, counters and trace in one memory, and the decoder of the host's bus."""
