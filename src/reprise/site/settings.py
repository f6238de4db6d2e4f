"""How the page is served: addresses, the secret that strangers need, and the key that signs cookies and links."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from reprise.files import home, written_whole

__all__ = ["Settings", "host_name", "is_loopback", "signing_key"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORTEST_SECRET = 12  # characters


@dataclass(frozen=True)
class Settings:
    """How the page is served.

    Attributes:
        host: the address to bind. Any other than this machine's own demands a secret.
        port: the port to bind.
        secret: what a visitor must know where the page can be reached from elsewhere.
        public_url: the address under which readers reach the page, if it is behind a public one: links in mails and
            feeds begin with it. Then reading is free, and starting runs demands the secret.
        static: pages are written to files, so forms are left out.

    Raises:
        ValueError: the page could be reached from elsewhere without a secret; a public address that is none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    secret: str = ""
    public_url: str = ""
    static: bool = False

    def __post_init__(self) -> None:
        address = urlsplit(self.public_url)
        if self.public_url and (address.scheme not in ("http", "https") or not address.hostname):
            raise ValueError(
                f"REPRISE_PUBLIC_URL is an address such as https://papers.example, not {self.public_url!r}"
            )
        if self.exposed and len(self.secret) < SHORTEST_SECRET:
            where = f"bound to {self.host}" if not is_loopback(self.host) else f"reached as {self.public_url}"
            raise ValueError(
                f"{where}, the page can be reached from other machines, so set REPRISE_SECRET to a secret of at least "
                f"{SHORTEST_SECRET} characters that visitors enter (or leave --host out to serve this machine alone)"
            )

    @classmethod
    def from_environment(cls, host: str = "127.0.0.1", port: int = 8000) -> Settings:
        """Settings with ``$REPRISE_SECRET`` and ``$REPRISE_PUBLIC_URL``."""
        public_url = os.environ.get("REPRISE_PUBLIC_URL", "").rstrip("/")
        return cls(host, port, os.environ.get("REPRISE_SECRET", ""), public_url)

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the page."""
        public = urlsplit(self.public_url).hostname
        return not self.static and (not is_loopback(self.host) or (public is not None and not is_loopback(public)))

    @property
    def base(self) -> str:
        """The address that absolute links begin with, without a slash at the end; empty for files without one."""
        if self.static:
            return self.public_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @cached_property
    def _names(self) -> frozenset[str]:
        names = {*LOOPBACK, self.host.lower(), urlsplit(self.public_url).hostname or ""}
        if not is_loopback(self.host):
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return frozenset(names - {""})

    def answers_to(self, host: str) -> bool:
        """Whether a Host header names this server.

        A page elsewhere can make its own name point to this machine, and then read what it answers; the Host header
        gives it away. An address in digits cannot be pointed anywhere, so it is fine where others are served, too.
        """
        name = host_name(host)
        return name in self._names or (not is_loopback(self.host) and _is_address(name))


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") if not set(host) & set("/@?#\\ ") else ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def signing_key() -> str:
    """The key that signs cookies and links, made once per ``$REPRISE_HOME``; whoever has it can forge them."""
    path = home() / "site" / "key"
    if not path.exists():
        with written_whole(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32), encoding="ascii")
            os.chmod(temporary, 0o600)
            _link(temporary, path)
    return path.read_text(encoding="ascii")


def _link(temporary: Path, path: Path) -> None:
    """Give the key its name unless another server was faster; then the other's is used."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        temporary.write_bytes(path.read_bytes())
