"""Notebooks: a widget to browse a library and to search it by clicking."""
