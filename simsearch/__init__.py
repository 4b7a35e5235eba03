"""Image similarity search."""
