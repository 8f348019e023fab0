"""The compiler, and the contract that it shares with gateware, models and driver. A model goes from top to bottom:

compiler  one call from a model file to a program
importer  operators of the file become layers
operators the operators, a family a module: import and lowering
tflite    the file as checked values, and a reader of one operator
ir        the integer graph and its rewrites
memory    where each tensor lies
lowering  layers become instructions; order, tokens, marks; predicted cycles
numerics  integer arithmetic of the reference kernels, as far as the compiler and the driver do it
spec      the contract: instructions, configuration, memory map, link, DMA, program; all other packages import it

``docs`` writes the reference pages from ``spec``; ``errors`` says why a model cannot be compiled.
"""
