"""The client for programs that block, made of onrecord.client.aio by clients/python/generate.py."""
