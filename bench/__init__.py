"""Costs measured against the floor, in the same run: `scripts/bench`."""
