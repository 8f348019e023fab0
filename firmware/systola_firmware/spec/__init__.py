"""The contract of compiler, gateware, models and driver: every fact that more than one of them needs, written once.

isa, assembly          instructions, and their text
config, presets        sizes of an engine, and the named ones
memory_map             regions, registers, counters
link, dma, pcie        frames, descriptors and records, the PCI function
sigmoid                the table of the LSTM cell
program, program_file  what the compiler hands to the driver
"""
