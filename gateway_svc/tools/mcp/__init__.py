"""Tools of MCP servers, beside the gateway's own: a model sees `server.tool`, and the record has one row for each call.

| module     | what it knows                                                            |
|------------|--------------------------------------------------------------------------|
| settings   | the file that names the servers (GATEWAY_MCP_FILE)                       |
| wire       | JSON-RPC as servers write it, read leniently                             |
| client     | requests to one server, and their answers                                |
| process    | a server as a program of ours: its pipes, its end                        |
| http       | a server at an address                                                   |
| connection | one server: connected, listed, called, and reconnected when it dies      |
| listing    | the tools that it lists, and which of them are accepted                  |
| schemas    | a tool's schema, rewritten into what every provider accepts              |
| results    | a server's answer, for the model and for the record                      |
| servers    | all of them, and the tools that they offer together                      |
"""
