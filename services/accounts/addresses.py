"""Network addresses, as far as they tell who somebody is."""

import ipaddress
from typing import Final

_IPV6_NETWORK: Final = 64
"""One household or machine has at least so much to choose its addresses from."""


def network_of(address: str) -> str:
    """Whom an address stands for: itself, or with IPv6 the network that one customer is given."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip.packed, _IPV6_NETWORK), strict=False))
    return str(ip)
