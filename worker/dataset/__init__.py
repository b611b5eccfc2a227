"""Turning an upload into examples: archives, layout, decoding. `worker.data` is the program; nothing here knows the service."""
