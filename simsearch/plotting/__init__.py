"""Plotting: figures of matches and sheets of images."""
