"""Making the shards of a batch: a local program that makes and encodes samples by the very code that answers single requests.

python -m worker.batch RUN_DIR
"""
