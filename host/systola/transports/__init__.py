"""Ways to a device's memory map: the serial link, PCIe, and simulated devices behind the same interface."""
