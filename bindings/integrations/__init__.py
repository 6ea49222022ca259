"""Adapters for frameworks that people build agents with, a package for each: docs/integrations.md.

Nothing is imported here: a framework is loaded by the package of its name alone, which needs the
extra of that name.
"""
