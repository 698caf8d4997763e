"""Conversations in files, below GATEWAY_STATE_DIR:

    sessions/owner-<name>/<7 characters>/<session id>.session        what the session is; replaced by rename
                                         <session id>.conversation   what was said in it; only appended to
    sessions/keys.json, keys.lock, keys-used/                         which keys they may be encrypted by
    sessions/leases/<session id>                                     locked while somebody has the session
    sessions/set-aside/…                                             older files that could not be read

Where a key encrypts, payloads are as encryption.py says: a record that is whole and cannot be decrypted was changed.

Both files are in the format of recording.framing. The folders of 7 characters are the beginnings of the ids, which are
times: one holds the sessions of 17 minutes, so that a page of a listing looks at few names however many there are.

    file              responsibility
    store.py          the protocol, each call in a thread
    lease.py          one session that is held
    transcript.py     <session id>.conversation
    session_file.py   <session id>.session
    places.py         names of files and folders; leases
    saving.py         waits for the disk
    rewriting.py      both files anew, under another key
    noted_keys.py     keys.json, keys.lock, keys-used/
    older.py          moves over what earlier versions have left
"""
