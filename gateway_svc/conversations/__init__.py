"""Conversations: what is said in sessions, the only content that a gateway keeps.

layer              file             responsibility
the protocol       protocol.py      what a home of conversations does; turns know no more of it
what is kept       session.py       what a session is: owner, settings, sums, status
messages.py      a message as bytes, and back
records.py       records of messages as a home reads them
history.py       what a model is told where messages are missing
the homes          files/           each session's files in the state directory
postgres/        a database that gateways share
in memory          memory.py        conversations that were read, for the next turn
care               retention.py     removes sessions that nobody has used for long
commands.py      check and export, for people
"""
