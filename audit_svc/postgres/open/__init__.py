"""Opening: connections, migrations, what the server must be able to do."""
