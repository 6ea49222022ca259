"""Benchmarks: AmberDB and comparable engines, in the same run and on the same documents.

`python -m bench` runs every row; bench/README.md describes each row and how to read the report.
"""
