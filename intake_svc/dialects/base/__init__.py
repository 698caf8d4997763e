"""What dialects are made of: tables, the events that are read by them, and the rows that are made of these."""
