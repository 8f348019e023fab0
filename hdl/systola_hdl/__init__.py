"""The gateware, in Amaranth. A line belongs to the lowest room that knows every noun in it.

tops      whole designs up to their pins: boards, simulations; Verilog of them
full      the engine of pipelines: control, memory, matmul, post (with lstm)
compact   the engine for FPGAs of a few thousand logic cells, in the same rooms
dma       moves descriptors' data between the host's memory and the engine's
link      the serial link: frames on a UART          pcie  the other link: a TLP endpoint, and adapters of hard blocks
host      what every engine shows its links: the bus, registers, counters, trace, program store
cells     what the FPGA families have: multipliers, block memories, and models of them in logic
common    what any block may be built of: delay lines, skid buffer, credit queue, address generator, layouts

A room imports from those below it in this list, and never from above.
"""
