"""Machines that are awake: sandboxes, the guest, instructions, idling."""
