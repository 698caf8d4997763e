"""`make bench-peers`: what others take for the same work, each by turns with ours in one run on one machine."""
