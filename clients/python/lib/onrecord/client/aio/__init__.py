"""The client for asyncio. clients/python/generate.py generates the blocking one, onrecord.client.sync, from it."""
