"""Readers in other processes beside one writer: `python -m bench.readers`."""
