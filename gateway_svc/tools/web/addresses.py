"""Which network addresses a fetch may connect to: public ones only. The tables follow IANA's registries.

The rules are those of pydantic-ai's `_ssrf.py`, but stricter for IPv4 addresses embedded in IPv6 ones.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Where clouds serve credentials, some in public ranges. Not even a name on the allow list may lead here.
METADATA = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle, DigitalOcean, OpenStack
        "169.254.169.253",  # AWS: its resolver
        "169.254.169.123",  # AWS: its clock
        "169.254.170.2",  # AWS ECS: credentials of a task
        "169.254.170.23",  # AWS EKS: credentials of a pod
        "168.63.129.16",  # Azure: the host's agent
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle Classic
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent
        "169.254.10.10",  # Tencent
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
    )
)
REFUSED = tuple(
    (ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "a carrier's shared range"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("2001::/23", "reserved for protocols"),  # Teredo, ORCHID and others
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address in 6to4"),
        ("3fff::/20", "for documentation"),
    )
)
PUBLIC_IPV6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
_32_BITS = 0xFFFF_FFFF
ISATAP_MARKS = (0x0000_5EFE, 0x0200_5EFE)


def is_metadata(address: Address) -> bool:
    """Whether the address is a metadata service's, also as an IPv4 address embedded in an IPv6 one."""
    if isinstance(address, IPv4Address):
        return address in METADATA
    number = int(address)
    # At the end if mapped, compatible, translated or ISATAP; after the first part in 6to4; inverted in Teredo.
    held = number & _32_BITS, number >> 80 & _32_BITS, ~number & _32_BITS
    return any(part in METADATA for part in (IPv6Address(number), *map(IPv4Address, held)))


def refusal(address: Address) -> str | None:
    """Why a fetch must not connect to the address, in words that follow "is"; None if it may."""
    if is_metadata(address):
        return "a metadata service"
    for network, why in REFUSED:
        if _contains(network, address):
            return why
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        # A resolver in a network without IPv4 returns these for every IPv4 host, so the embedded address counts.
        return refusal(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address not in PUBLIC_IPV6:
        return "not a public IPv6 address"
    if int(address) >> 32 & 0xFFFF_FFFF in ISATAP_MARKS:
        return "an IPv4 address in ISATAP"
    return None


def _contains(network: IPv4Network | IPv6Network, address: Address) -> bool:
    return network.version == address.version and address in network
