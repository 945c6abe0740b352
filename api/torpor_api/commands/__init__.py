"""The operators' commands of the `torpor` console script, each a Typer app under an entry point."""
