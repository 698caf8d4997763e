include!(concat!(env!("OUT_DIR"), "/onrecord.rs"));
pub fn input(request: &onrecord::gateway::v1::RunTurnRequest) -> &str { &request.input }
