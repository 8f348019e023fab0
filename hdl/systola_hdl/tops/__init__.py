"""Whole designs up to their pins: boards, simulated boards, PCIe cards; and the Verilog of them."""
