"""Commits: write batch, unique check, committer, checkpoint, recovery, change feed, follower."""
