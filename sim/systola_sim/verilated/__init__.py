"""The gateware compiled by Verilator: builds and their cache, boards as byte pipes, PCIe."""
