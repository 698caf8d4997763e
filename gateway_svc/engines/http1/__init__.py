"""HTTP/1.1 to model servers: a lean transport under httpx2's client, for small requests and streamed answers."""
