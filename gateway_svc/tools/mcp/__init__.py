"""Tools of MCP servers, beside the gateway's own: `server.tool` to a model, one row a call on the record.

| module     | what it knows                                                            |
|------------|--------------------------------------------------------------------------|
| settings   | the file that names the servers (GATEWAY_MCP_FILE)                       |
| wire       | JSON-RPC as servers write it, read with patience                         |
| client     | requests to one server, and their answers                                |
| process    | a server as a program of ours: its pipes, its end                        |
| http       | a server at an address                                                   |
| connection | one server: connected, listed, called, and connected again when it died  |
| listing    | the tools that it lists, and what of them is taken                       |
| schemas    | a tool's schema, mended into what every provider takes                   |
| results    | what a server's answer is to the model and to the record                 |
| servers    | all of them, and the tools that they offer together                      |
"""
