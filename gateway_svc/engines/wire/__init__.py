"""What engines share on the wire: HTTP, streams, fields of JSON, failures."""
