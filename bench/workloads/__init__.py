"""The documents and questions of the rows, from one fixed seed."""
