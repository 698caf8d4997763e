"""The doors by which other agents come on the record: their OpenTelemetry becomes rows, and no content comes in."""
