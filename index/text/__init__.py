"""Full-text indexes.

text        the declaration, and what it indexes of one document
analyzer    text to terms, with stopwords and language_libraries
postings    terms to rows: in memory, and as packed segments (packing has the bytes)
batch       rows that are packed at once, without being searchable before
query       a query parsed
bm25        scores of a query's rows
highlight   the snippet that shows why a document matched
"""
