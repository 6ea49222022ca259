"""Benchmarks: AmberDB beside what else one would reach for, same run, same documents.

`python -m bench` runs every row; bench/README.md says what each row does and how to read it.
"""
