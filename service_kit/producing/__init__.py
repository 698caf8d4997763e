"""What a service that records needs besides: settings, the way to its ledger, the counters of its record."""
