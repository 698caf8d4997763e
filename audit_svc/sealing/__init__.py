"""The seal beside a service: its process, and which store it seals."""
