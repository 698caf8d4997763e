"""The spool: where rows wait, on this machine's disk, until the audit service has stored them.

    layer                 file            responsibility
    folders               folders.py      the own folder; adoption of dead processes' folders
    one folder            spool.py        puts the layers below together; sync, trim, recovery
    writing end           intake.py       any thread; bounds, open intents, gaps
    reading end           reader.py       batches in order, from disk; damage and missing numbers
    growing segment       appender.py     one write a record; what is not synced yet
    files                 segments.py     names, headers, versions
    records               records.py      rows and intents in the format of recording.framing
    beside the records    state.py        how far it is acked; the gap that is not reported yet
                          gap.py          rows that could not be recorded, and the row that reports them
                          quarantine.py   damaged bytes
                          interrupted.py  the row of a call that never ended
                          salvage.py      the readable rest of a folder that was taken away
                          keeper.py       the thread that syncs and trims

Below GATEWAY_STATE_DIR:

    spool/<producer id>/lock, state, <first number>.segment ...
    spool/quarantine/<producer id>-<first number>-<offset>
    spool/dead-letters/<producer id>.jsonl
    spool/kept/<order>-<producer id>-<first number>.segment     (recording.kept)
"""

from recording.spool.counters import Counters
from recording.spool.folders import Folders
from recording.spool.intake import SpoolClosed
from recording.spool.reader import Batch
from recording.spool.spool import Spool, SpoolOptions, Sync

__all__ = ["Batch", "Counters", "Folders", "Spool", "SpoolClosed", "SpoolOptions", "Sync"]
