"""The command line: parse, call the library, turn a `SimsearchError` into one line."""
