"""Commands for people, beside serve and migrate."""
