"""All services of the protos."""

import importlib

from google.protobuf.descriptor import ServiceDescriptor

from demo.processes import REPOSITORY


def _services() -> list[ServiceDescriptor]:
    found: list[ServiceDescriptor] = []
    for proto in sorted((REPOSITORY / "protos/onrecord").rglob("*.proto")):
        name = proto.relative_to(REPOSITORY / "protos").with_suffix("").as_posix().replace("/", ".")
        found += importlib.import_module(f"{name}_pb2").DESCRIPTOR.services_by_name.values()
    return found


SERVICES = _services()
