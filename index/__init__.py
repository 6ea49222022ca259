"""Indexes: from documents to sorted bytes. Knows documents and bytes, and no file.

keys        values to bytes that sort as the values do
paths       dotted paths into documents
ordered, unique   the declarations that people write
base        a declaration compiled: the entries of one document

analyzer    text to terms; stopwords and libraries are what it knows of languages
text        the declaration of a full-text index, and what one document brings to it
postings    terms to rows: in memory, and packed as packing has it
textquery, ranking   a query parsed, and BM25 over postings
fusion      several rankings made one
highlight   the part of a document that shows why it was found
"""
