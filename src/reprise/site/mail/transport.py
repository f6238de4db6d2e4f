"""How a message leaves: by SMTP, or into a folder of .eml files where no mail server is set."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

from reprise.files import home, written_whole

__all__ = ["Later", "Lost", "Outbox", "Refused", "Smtp", "Transport", "configured"]

TIMEOUT = 30.0  # seconds


class Later(RuntimeError):
    """It was certainly not sent, and may be tried again."""


class Refused(RuntimeError):
    """It was certainly not sent, and will not be: by the reader's server (``reader``) or for what it holds."""

    def __init__(self, message: str, reader: bool) -> None:
        super().__init__(message)
        self.reader = reader


class Lost(RuntimeError):
    """The line dropped after the text was under way: nobody can know whether it arrived."""


class Transport(Protocol):
    """Sends messages. ``repeatable``: sending the same twice gives one."""

    @property
    def repeatable(self) -> bool: ...

    def send(self, message: EmailMessage, address: str, before: Callable[[], None]) -> None:
        """Send; ``before`` is called when the next step could not be taken back.

        Raises:
            Later: not sent, try again.
            Refused: not sent, do not try again.
            Lost: sent or not.
        """


@dataclass(frozen=True)
class Outbox:
    """A folder that gets one .eml file per message, named after its Message-ID."""

    folder: Path
    repeatable: bool = True

    def send(self, message: EmailMessage, address: str, before: Callable[[], None]) -> None:
        """Write the file."""
        before()
        name = re.sub(r"[^\w.-]", "_", str(message["Message-ID"]).strip("<>"))
        try:
            with written_whole(self.folder / f"{name}.eml") as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(message.as_bytes())
        except OSError as error:
            raise Later(f"the outbox cannot be written: {error.strerror}") from error


@dataclass(frozen=True)
class Smtp:
    """A mail server.

    Attributes:
        host, port: where it is.
        security: "starttls", "tls" or "none".
        user, password: if it wants them.
    """

    host: str
    port: int
    sender: str
    security: str = "starttls"
    user: str = ""
    password: str = ""
    repeatable: bool = False

    def send(self, message: EmailMessage, address: str, before: Callable[[], None]) -> None:
        """Send over a connection of its own, step by step, since each step fails in another way."""
        connection = self._connected()
        try:
            self._step(connection.mail, self.sender)
            self._step(connection.rcpt, address, reader=True)
            before()
            self._data(connection, message)
        finally:
            try:
                connection.quit()
            except (smtplib.SMTPException, OSError):
                connection.close()

    def _connected(self) -> smtplib.SMTP:
        try:
            if self.security == "tls":
                connection: smtplib.SMTP = smtplib.SMTP_SSL(
                    self.host, self.port, timeout=TIMEOUT, context=ssl.create_default_context()
                )
            else:
                connection = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT)
            try:
                connection.ehlo_or_helo_if_needed()
                if self.security == "starttls":
                    connection.starttls(context=ssl.create_default_context())
                if self.user:
                    connection.login(self.user, self.password)
            except BaseException:
                connection.close()
                raise
        except (smtplib.SMTPException, OSError) as error:
            raise Later(f"no way to the mail server: {_told(error)}") from error
        return connection

    def _step(self, command: Callable[[str], tuple[int, bytes]], address: str, reader: bool = False) -> None:
        try:
            code, text = command(address)
        except (smtplib.SMTPException, OSError) as error:
            raise Later(f"the mail server hung up: {_told(error)}") from error
        said = f"{code} {text.decode('utf-8', 'replace').replace(address, '(address)')[:200]}"
        if code >= 500:
            raise Refused(said, reader)
        if code >= 300:
            raise Later(said)

    def _data(self, connection: smtplib.SMTP, message: EmailMessage) -> None:
        try:
            code, text = connection.docmd("DATA")
        except (smtplib.SMTPException, OSError) as error:
            raise Later(f"the mail server hung up before the text: {_told(error)}") from error
        if code == 354:
            content = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
            stuffed = re.sub(rb"(?m)^\.", b"..", content)
            try:
                connection.send(stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n")
                code, text = connection.getreply()
            except (smtplib.SMTPException, OSError) as error:
                raise Lost(f"the line dropped after the text: {_told(error)}") from error
        said = f"{code} {text.decode('utf-8', 'replace')[:200]}"
        if code >= 500:
            raise Refused(said, reader=False)
        if code >= 300:
            raise Later(said)


def _told(error: Exception) -> str:
    """What went wrong, without what the server said: it likes to repeat addresses and names."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"code {error.smtp_code}"
    if isinstance(error, socket.gaierror | ConnectionError | TimeoutError) and error.strerror:
        return error.strerror
    return type(error).__name__


def configured() -> Transport:
    """What ``$REPRISE_SMTP_HOST``, ``_PORT``, ``_SECURITY``, ``_USER``, ``_PASSWORD`` and ``$REPRISE_MAIL_FROM`` say.

    Without a host it is the folder ``$REPRISE_HOME/outbox``.

    Raises:
        ValueError: a setting is missing or makes no sense.
    """
    host = os.environ.get("REPRISE_SMTP_HOST", "")
    if not host:
        return Outbox(home() / "outbox")
    security = os.environ.get("REPRISE_SMTP_SECURITY", "starttls")
    if security not in ("starttls", "tls", "none"):
        raise ValueError(f"REPRISE_SMTP_SECURITY is starttls, tls or none, not {security!r}")
    port = os.environ.get("REPRISE_SMTP_PORT", {"starttls": "587", "tls": "465", "none": "25"}[security])
    if not port.isdigit():
        raise ValueError(f"REPRISE_SMTP_PORT is a number, not {port!r}")
    sender = os.environ.get("REPRISE_MAIL_FROM", "")
    if "@" not in sender:
        raise ValueError("with REPRISE_SMTP_HOST set, REPRISE_MAIL_FROM must be the address that mail comes from")
    user, password = os.environ.get("REPRISE_SMTP_USER", ""), os.environ.get("REPRISE_SMTP_PASSWORD", "")
    return Smtp(host, int(port), sender, security, user, password)
