"""A Systola engine on PCIe, driven from user space with the standard library alone: no kernel module of our own.

``function`` is what a device offers, whoever gives access to it; ``vfio`` and ``sysfs`` are the kernel's two ways,
``ring`` and ``transport`` are what the driver makes of it, ``binding`` gives a device to vfio-pci and back.
"""
