"""JSON lines in and out, and documents as JSON text."""
