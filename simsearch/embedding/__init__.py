"""Embedding: the pipeline from a dataset to a library, in batches, incremental and resumable."""
