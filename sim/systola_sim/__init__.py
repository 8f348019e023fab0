"""Models of everything that the gateware does, bit for bit, and the gateware itself in simulation.

golden     the arithmetic in numpy: requantization, LSTM cell, kernels of the integer graph
machine    programs in numpy: the interpreter, the golden board behind the memory map, its DMA engine
verilated  the gateware compiled by Verilator: builds and their cache, boards as byte pipes, PCIe
blocks     models and surroundings of single blocks
cells      simulation models of FPGA vendors' cells
"""
