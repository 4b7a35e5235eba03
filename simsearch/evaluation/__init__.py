"""Evaluation: retrieval metrics, match thresholds, and their figures."""
