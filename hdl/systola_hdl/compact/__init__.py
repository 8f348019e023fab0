"""The compact engine: what :mod:`systola_hdl.full` does, in an FPGA of a few thousand logic cells.

engine             everything behind the host's bus, put together
control            sequencer, registers and bus decoder around one memory
memory             activation memory and weight memory, of single-port blocks
matmul             weight loader, streamer, array, accumulators
post               instruction, operands, parameters, values, requantizer, output
address_generator  loops whose outer levels live in a small memory
interfaces         signatures through which these meet
"""
