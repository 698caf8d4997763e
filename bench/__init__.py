"""The figures that README quotes: `python -m bench` measures each against its baseline in one run on one machine.

file               measures
throughput.py      (a) rows a second to a synced commit, one producer and eight
record_cost.py     (b) what the record of a call takes of the agent's thread
ack_time.py        (c) how long a row is on its way to its ack
agent_loop.py      (d) a step of the agent loop, with a ledger and with broken ones
recovery.py        (e) many rows that gathered while the ledger was down
door.py            (l) spans through the door for other agents

loops.py           the loops that (d) compares
workers.py         processes that measure what they are asked
services.py        the ledger, the model server, and ledgers that do not answer
rows.py            rows as gateways make them, and the same tables in standard-library sqlite3
figures.py         a line of the table
"""
