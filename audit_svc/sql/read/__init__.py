"""Listings, timelines, exports and tails."""
