"""Commands for people, which call a running gateway."""
