"""A package, so that it goes before one of the same name among the dependencies: torch-fidelity brings one."""
