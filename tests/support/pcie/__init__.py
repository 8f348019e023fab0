"""PCIe in tests: packets, hosts, the monitor, a kernel made of files, a Linux guest."""
