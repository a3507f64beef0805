"""What proves who is who on an encrypted connection, for gRPC and for REST."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nudge_vdb.address import Address
from nudge_vdb.errors import BadAddress

OPTIONS = ("tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True)
class Papers:
    """The files that an address names: whom to trust instead of the public authorities, and who we are."""

    authority: Path | None
    certificate: Path | None
    key: Path | None

    def for_grpc(self) -> dict[str, Any]:
        """Return them as options of a gRPC channel."""
        named = {
            "root_certificates": self.authority,
            "certificate_chain": self.certificate,
            "private_key": self.key,
        }
        return {name: file.read_bytes() for name, file in named.items() if file is not None}

    def for_rest(self) -> dict[str, Any]:
        """Return them as options of an HTTP client.

        Raises:
            BadAddress: a file holds something else than it should.
        """
        if self.authority is None and self.certificate is None:
            return {}
        try:
            context = (
                ssl.create_default_context(cafile=self.authority) if self.authority else httpx.create_ssl_context()
            )
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as exc:
            named = ", ".join(str(file) for file in (self.authority, self.certificate, self.key) if file)
            raise BadAddress(f"{named}: expected certificates and a key that belong together, in PEM ({exc})") from exc
        return {"verify": context}


def papers_of(address: Address) -> Papers:
    """Return the papers that *address* names.

    Raises:
        BadAddress: a file that is not there, one half of a pair, or an address that is not encrypted.
    """
    given = [name for name in OPTIONS if address.option(name) is not None]
    if given and address.transport != "https":
        raise BadAddress(f"option {given[0]} is for encrypted connections; write {address.backend}+https://…")
    if ("tls_cert" in given) != ("tls_key" in given):
        raise BadAddress("a client's certificate goes with its key: give both tls_cert=FILE and tls_key=FILE")
    return Papers(*(_file(address, name) for name in OPTIONS))


def _file(address: Address, option: str) -> Path | None:
    name = address.option(option)
    if name is None:
        return None
    file = Path(name)
    try:
        file.read_bytes()
    except OSError as exc:
        raise BadAddress(f"option {option}={name} cannot be read: {exc.strerror}") from exc
    return file
