"""The retry policy names the unary RPCs that may be tried again, all of them and no other."""

import json

from google.protobuf import descriptor_pb2
from onrecord.audit.v1 import administration_pb2, audit_pb2, proof_pb2, questions_pb2
from onrecord.gateway.v1 import approvals_pb2, control_pb2, gateway_pb2

from demo.processes import REPOSITORY


def test_each_unary_rpc_that_may_be_tried_again_is_named_and_no_other():
    [config] = json.loads((REPOSITORY / "protos/onrecord/service_config.json").read_text())["methodConfig"]
    named = [(name["service"], name["method"]) for name in config["name"]]
    safe = set()
    for module in (audit_pb2, questions_pb2, administration_pb2, proof_pb2, gateway_pb2, approvals_pb2, control_pb2):
        file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for service in file.service:
            for method in service.method:
                if method.options.idempotency_level and not (method.client_streaming or method.server_streaming):
                    safe.add((f"{file.package}.{service.name}", method.name))
    assert len(named) == len(set(named))
    assert set(named) == safe
