"""Training: heads and fine-tuned backbones from labels."""
