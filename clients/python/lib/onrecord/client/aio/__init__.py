"""The client for asyncio. clients/python/generate.py makes the other half, onrecord.client.sync, of it."""
