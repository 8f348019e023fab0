"""The open toolchain: its programs, the flow to a bitstream, synthesis of one block, Verilog, programming."""
