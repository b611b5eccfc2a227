"""The whole service as one tree of processes on one machine: `ganvil up`."""
