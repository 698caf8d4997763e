"""`intake-svc setup AGENT`: an agent's own configuration, printed, merged into its file, or taken back."""
