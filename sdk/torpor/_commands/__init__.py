"""The commands of `torpor` that any user has, a module each."""
