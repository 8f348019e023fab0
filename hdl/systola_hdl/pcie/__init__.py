"""PCI Express: a transaction-layer endpoint on a 64-bit stream of raw TLPs, and the adapters of hard blocks to that
stream.

The parts meet through :mod:`systola_hdl.pcie.tlp.stream`. All are in the ``sync`` domain, the clock of the PCIe block's
user side.
"""
