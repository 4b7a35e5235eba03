"""Existing engines past one machine: embedding on Ray, search on Milvus."""
