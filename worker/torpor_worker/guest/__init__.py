"""Code that runs inside the sandbox. It imports nothing of ours from outside this folder."""
