"""The serial link: frames with CRC and sequence numbers on a UART."""
