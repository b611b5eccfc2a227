"""The HTTP operations: each parses, calls the core and answers; queries and rules live below."""
