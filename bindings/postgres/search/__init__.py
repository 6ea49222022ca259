"""Search indexes of a database on a server: their tables, and the searchers that search() asks."""
