"""The rows of the record, each built in one place."""
