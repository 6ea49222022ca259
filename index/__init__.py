"""Indexes: from documents to sorted bytes. Knows documents and bytes, and no file.

keys        values to bytes that sort as the values do
paths       dotted paths into documents
ordered, unique   the declarations that people write
base        a declaration compiled: the entries of one document
"""
