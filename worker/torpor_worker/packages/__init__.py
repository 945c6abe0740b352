"""Packages for machines that have no network: chosen and fetched on the host, and handed in as wheels."""
