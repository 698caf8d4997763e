"""Usage in groups, from the tables that keep its sums."""
