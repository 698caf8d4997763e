"""Hooks of other agents: what they tell of a call before it runs and after it, as rows of the record.

`onrecord-hook` is the modules client, kept, tables, event and answers, which import the standard library alone.
"""
