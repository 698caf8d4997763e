"""Conversations in PostgreSQL, in a database of their own, for gateways on several machines:

    gateways               who shares the database; each holds an advisory lock on its number while it lives
    conversations          what each session is, who holds it, and the fence: how often it was taken
    conversation_records   what was said; only appended to
    gateway_requests       which request_id a gateway runs, or has run within the last hour
    conversation_keys      which keys sessions may be encrypted by
    gateway_calls          calls that a gateway passes on to the others, and gateway_answers
    gateway_spending       what labels have spent, by gateway
    gateway_stops          what is stopped, and what was until it was lifted

A session's holder is a gateway's number in its row. The holder lives as long as its connection holds the lock and it
tells so every few seconds; else the next gateway takes the session, which raises the fence. Each write of a holder
names its number and the fence, and does nothing where another has taken the session since: a gateway that was paused
cannot write over its successor, whatever any clock says.

    file            responsibility
    store.py        the protocol
    lease.py        one session that is held
    rewriting.py    a session anew, under another key
    noted_keys.py   the keys
    reading.py      records as a history, and as pages of what was said
    membership.py   this gateway among those that share the database
    calls.py        calls between gateways
    sealing.py      their encryption
    requests.py     requests that run once, at one of the gateways
    streams.py      answers of many parts between gateways
    spending.py     what labels have spent at all of them
    stops.py        what is stopped at all of them
    database.py     connections, and what their errors mean
    migrate.py      the tables, at start
"""
