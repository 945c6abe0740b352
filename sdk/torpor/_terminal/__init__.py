"""What people see on a terminal: text of strangers made harmless, pictures, tables, tracebacks."""
