"""What both services need to be gRPC servers."""
