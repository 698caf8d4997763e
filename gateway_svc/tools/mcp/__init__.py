"""Tools of MCP servers, beside the gateway's own: `server.tool` to a model, one row a call on the record.

| module     | what it knows                                                            |
|------------|--------------------------------------------------------------------------|
| settings   | the file that names the servers (GATEWAY_MCP_FILE)                       |
| process    | a server as a program of ours: its pipes, its end                        |
| http       | a server at an address                                                   |
| connection | one server: connected, listed, called, and connected again when it died  |
| results    | what a server's answer is to the model and to the record                 |
| servers    | all of them, and the tools that they offer together                      |

The package `mcp` is an extra, and loaded only where the file is set.
"""
