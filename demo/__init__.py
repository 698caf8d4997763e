"""A demo of both services that needs no model server, and the scripted model server that tests use."""
