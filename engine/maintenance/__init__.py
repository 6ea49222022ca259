"""Background work: index builds, migration, expiry, embedding backfill, compaction, erasure."""
