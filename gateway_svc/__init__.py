"""gateway_svc runs engines with an agent loop and tools, and sends one audit row per tool call to the audit service."""

import service_kit as service_kit  # ahead of gRPC, whose log it turns off
