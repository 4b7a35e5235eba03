"""The same two jobs on existing engines: embedding on Ray, search on Milvus.

Nothing here embeds or ranks by itself; each engine is imported where it is used.
"""
