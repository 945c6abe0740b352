"""Commands that the server adds to `torpor`."""
