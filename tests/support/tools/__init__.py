"""Stand-ins for the FPGA toolchain."""
