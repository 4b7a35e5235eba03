"""Retrieval: a query becomes matches."""
