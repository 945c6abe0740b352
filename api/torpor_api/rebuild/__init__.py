"""A database from its store: what is there (survey), what follows from it (plan); `torpor recover` writes that."""
