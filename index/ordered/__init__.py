"""Ordered and unique indexes.

ordered, unique   the declarations
key_encoder       a declaration compiled: the entries of one document
keys              values to bytes that sort as the values do
"""
