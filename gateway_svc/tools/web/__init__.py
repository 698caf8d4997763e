"""What pages are reached and read by."""
