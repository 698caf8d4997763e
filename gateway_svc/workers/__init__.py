"""One gateway of several processes: the supervisor, what the workers share, and how they reach each other."""
