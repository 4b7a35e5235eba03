"""Libraries: the files in outputs/, opened, checked and replaced whole; paths, labels, metadata."""
