"""From gateware to bitstreams with open tools.

catalogue  the boards: platform, preset, how each is loaded and reached
fpga       the FPGAs: devices, clocks, floorplan
toolchain  Yosys, nextpnr and packers; synthesis of one block, bitstreams, Verilog, programming
blocks     what can be synthesised alone, and the table of all blocks
netlist    what synthesis has made runs a model in simulation
documents  results of builds in ``docs/``
"""
