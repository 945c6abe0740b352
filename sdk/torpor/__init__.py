"""Python machines that are always there."""
