"""`gateway-svc rules`: checks a file of rules, and tries it on cases and on what is on the record."""
