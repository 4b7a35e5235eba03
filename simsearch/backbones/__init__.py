"""Backbones: frozen networks by name, their preprocessing and weights, and the heads after them."""
