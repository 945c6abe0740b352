"""Images to stored snapshots and back: encoding, stores, retention and runtimes."""
