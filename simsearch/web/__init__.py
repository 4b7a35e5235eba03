"""The web page and the REST API behind it: parse, ask the library, translate.

Nothing here searches, and no default of a search stands here.
"""
