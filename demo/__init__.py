"""What shows the pair at work without a model server of one's own."""
