"""Checks of open and closed databases, salvage and repair."""
