"""The serial link in tests: a device that keeps its rules, a terminal with something behind it."""
