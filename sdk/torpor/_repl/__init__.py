"""The conversation of `torpor repl`."""
