"""Reading: read-only connections, and the SQL of each query."""
