-- A client that attaches to a turn names no request: the one that it is of is looked up by it.
CREATE INDEX gateway_requests_turn ON gateway_requests (turn_id) WHERE turn_id <> '';
