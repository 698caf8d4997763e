"""The version of the rows that this tree builds and stores."""

ROW_VERSION = 5
"""RecordRequest.row_version. protos/README.md lists what each version added; a test holds this one to the protos."""
