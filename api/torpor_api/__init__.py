"""The HTTP and WebSocket API, accounts and keys, the ledger in SQL, and the embedded mode."""
