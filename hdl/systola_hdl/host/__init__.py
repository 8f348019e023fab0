"""What every engine shows its links: the bus and who shares it, the host port, registers, counters, trace, program."""
