"""protos/README.md has a call of every RPC. `make clients` runs them."""

import re

from demo.processes import REPOSITORY
from tests.protos.services import SERVICES


def test_every_rpc_has_a_call_in_the_contract():
    blocks = re.findall(r"^```sh\n(.*?)^```$", (REPOSITORY / "protos/README.md").read_text(), re.DOTALL | re.MULTILINE)
    called = set(re.findall(r"(\w+Service/\w+) '", "".join(blocks)))
    assert called == {f"{service.name}/{method.name}" for service in SERVICES for method in service.methods}
