"""Other products' interfaces, on machines that are always there."""
