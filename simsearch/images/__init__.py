"""Image files: found, read from disks and addresses, decoded to upright 8-bit RGB."""
