"""Rows about what is built on the database: chat, profiles, SQL stores, sharing, asyncio."""
