"""The objects that people call: Database, Collection, Transaction, Snapshot."""
