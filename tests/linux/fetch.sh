#!/bin/sh
# Put a Debian kernel for virtual machines, and its vfio modules, into the folder $1. Needs apt and the network; installs nothing.
set -eu
folder=$1
[ -f "$folder/vmlinuz" ] && exit 0
if ! command -v apt-get > /dev/null; then
    echo "the guest's kernel is fetched by apt-get, which is not here: put vmlinuz and the vfio modules of a Debian kernel into $folder" >&2
    exit 1
fi
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
if [ -z "$package" ]; then
    echo "apt knows no linux-image-cloud-amd64, the guest's kernel: run apt-get update as root, on Debian" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download "$package" && dpkg -x linux-image-*.deb .)
mkdir -p "$folder"
for module in irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do
    find "$work/lib" "$work/usr/lib" -name "$module.ko" -exec cp {} "$folder/" \; 2>/dev/null || true
done
cp "$work"/boot/vmlinuz-* "$folder/vmlinuz"
