"""The arguments of each command, by what the commands work on."""
