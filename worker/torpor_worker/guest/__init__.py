"""What runs inside a sandbox: supervisor and interpreter. Imports nothing of ours from outside this folder."""
