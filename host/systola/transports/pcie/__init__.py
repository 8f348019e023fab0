"""A Systola engine on PCIe, driven from user space with the standard library alone: no kernel module of our own.

``function`` is the interface to a device. Its backends are ``vfio`` and ``sysfs``, the kernel's two ways, and, without
hardware, ``simulated`` and ``verilated``. ``ring`` and ``transport`` use that interface. ``listed`` finds devices, and
``binding`` gives one to vfio-pci and back.
"""
