"""Certificate authority of a fleet, and the bundle that admits a device.

    FOLDER/ca.pem, ca-key.pem                  the authority; keep its key, which admits devices
    FOLDER/<device>/ca.pem, cert.pem, key.pem  bundle, to be copied to that device

TLS with these files keeps others out. It does not protect members of a fleet from each other: Dask
sends pickles, so a certificate of the fleet allows its holder to run code on all its machines.

This module owns the library cryptography.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from edgecap.errors import UsageError
from edgecap.storage.files import disk_errors, new_folder, write_atomically

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes as Key,
    )

    Extension = tuple[x509.ExtensionType, bool]

CA, CA_KEY, CERT, KEY = "ca.pem", "ca-key.pem", "cert.pem", "key.pem"
CA_DAYS, DEVICE_DAYS = 3652, 730
_BACKDATED = timedelta(days=1)  # a board's clock may be slow or in another time zone
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_OURS = {"ca", CA, CA_KEY}  # names of the authority, reserved


class CertificateBundle(NamedTuple):
    """Files that admit a device, the device name in the certificate, and its expiry."""

    ca: Path
    cert: Path
    key: Path
    name: str
    not_after: datetime


class _Authority(NamedTuple):
    cert: x509.Certificate
    key: Key


# --- creation ---------------------------------------------------------------------------------


def init(folder: Path, names: Sequence[str], now: datetime | None = None) -> list[Path]:
    """Create the authority and the bundles that are missing, and return the new bundles.

    Existing bundles are checked and kept, so that the whole list can be given again with one more
    device. Raise UsageError for an invalid name, or a damaged, expired or foreign file.
    """
    _need_library()
    now, checked = now or datetime.now(UTC), [_checked_name(name) for name in dict.fromkeys(names)]
    authority = _authority(folder, now)
    missing = [name for name in checked if not _is_valid_bundle(folder, name, now)]
    return [_make_bundle(folder / name, authority, now) for name in missing]


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a device: use up to 63 letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )
    if name.lower() in _OURS:
        raise UsageError(
            f"{name!r} cannot name a device: it is a file of the authority; use another name"
        )
    return name


def _is_valid_bundle(folder: Path, name: str, now: datetime) -> bool:
    """Return True if a valid bundle exists. Raise UsageError if an invalid one does."""
    bundle = folder / name
    if not os.path.lexists(bundle):
        return False
    try:
        existing = check(bundle, now)
    except UsageError as error:
        raise UsageError(f"{error}; or move {bundle} away to create it again") from error
    if _read(existing.ca) != _read(folder / CA):
        raise UsageError(
            f"{bundle} is of another authority than {folder / CA}: move it away to create it again"
        )
    return True


def _authority(folder: Path, now: datetime) -> _Authority:
    """Return the authority of a folder; create it if there is none."""
    there = [name for name in (CA, CA_KEY) if os.path.exists(folder / name)]
    if len(there) == 1:
        other = CA if there == [CA_KEY] else CA_KEY
        raise UsageError(
            f"{folder} has {there[0]} without {other}: restore it, or use another folder"
        )
    if not there:
        _make_authority(folder, now)
    authority = _Authority(_read_cert(folder / CA), _read_key(folder / CA_KEY))
    if authority.cert.public_key() != authority.key.public_key():
        raise UsageError(
            f"{folder / CA_KEY} is not the key of {folder / CA}: restore the right one"
        )
    _check_dates(authority.cert, folder / CA, now)
    return authority


def _make_authority(folder: Path, now: datetime) -> None:
    """Create an authority for devices only, without sub-authorities (RFC 5280, 4.2.1.9)."""
    from cryptography import x509

    # A unique name distinguishes fleets by name, not only by signature.
    key, name = _new_key(), _common_name(f"edgecap fleet {secrets.token_hex(4)}")
    mine = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True, crl_sign=True), True),
    ]
    cert = _signed(_builder(name, key, now + timedelta(days=CA_DAYS), now, mine), name, key)
    with disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / CA_KEY, _key_pem(key), private=True)
    write_atomically(folder / CA, _cert_pem(cert))


def _make_bundle(folder: Path, authority: _Authority, now: datetime) -> Path:
    """Create a device's bundle atomically, for server and client: a Dask worker is both."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key, until = (
        _new_key(),
        min(now + timedelta(days=DEVICE_DAYS), authority.cert.not_valid_after_utc),
    )
    mine = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            False,
        ),
        (x509.SubjectAlternativeName([x509.DNSName(folder.name)]), False),
    ]
    builder = _builder(_common_name(folder.name), key, until, now, mine)
    cert = _signed(builder, authority.cert.subject, authority.key)
    with new_folder(folder) as scratch:
        write_atomically(scratch / KEY, _key_pem(key), private=True)
        write_atomically(scratch / CERT, _cert_pem(cert))
        write_atomically(scratch / CA, _cert_pem(authority.cert))
    return folder


def _new_key() -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _common_name(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(**allowed: bool) -> x509.KeyUsage:
    from cryptography import x509

    signing = ["digital_signature", "content_commitment", "key_cert_sign", "crl_sign"]
    others = [
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    ]
    return x509.KeyUsage(**dict.fromkeys(signing + others, False) | allowed)


def _builder(
    subject: x509.Name, key: Key, until: datetime, now: datetime, mine: Sequence[Extension]
) -> x509.CertificateBuilder:
    """Return a certificate to be signed, with extensions, each critical or not."""
    from cryptography import x509

    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in mine:
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _signed(builder: x509.CertificateBuilder, issuer: x509.Name, key: Key) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return builder.issuer_name(issuer).add_extension(by, critical=False).sign(key, hashes.SHA256())


def _cert_pem(cert: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# --- checks -----------------------------------------------------------------------------------


def check(folder: Path, now: datetime | None = None) -> CertificateBundle:
    """Return a device's bundle if TLS will accept it.

    Raise UsageError if a file is missing or damaged, the key does not match or others can read it,
    or the certificate is of another authority, expired, or not valid yet.
    """
    _need_library()
    _check_files(folder)
    ca, cert = _read_cert(folder / CA), _read_cert(folder / CERT)
    if _read_key(folder / KEY).public_key() != cert.public_key():
        raise UsageError(
            f"{folder / KEY} is not the key of {folder / CERT}: copy the whole bundle again"
        )
    _check_signature(folder, ca, cert)
    for path, one in ((folder / CA, ca), (folder / CERT, cert)):
        _check_dates(one, path, now or datetime.now(UTC))
    return CertificateBundle(
        folder / CA, folder / CERT, folder / KEY, _name_of(cert), cert.not_valid_after_utc
    )


def _check_files(folder: Path) -> None:
    if os.path.exists(folder / CA_KEY):
        raise UsageError(
            f"{folder} is the folder of the whole fleet: "
            f"give a device's folder in it, {folder}/<device>"
        )
    for name in (CA, CERT, KEY):
        if not os.path.isfile(folder / name):
            raise UsageError(
                f"{folder} has no {name}: "
                "give the folder that `edgecap fleet init` made for this device"
            )
    if os.name == "posix" and (folder / KEY).stat().st_mode & 0o077:
        raise UsageError(
            f"others on this machine can read {folder / KEY}: chmod 600 {folder / KEY}"
        )


def _check_signature(folder: Path, ca: x509.Certificate, cert: x509.Certificate) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise UsageError(
            f"{folder / CERT} is not signed by {folder / CA}: they are of two fleets; "
            "copy the whole bundle again"
        ) from error


def _check_dates(cert: x509.Certificate, path: Path, now: datetime) -> None:
    """Raise UsageError outside the validity; suggest the clock first, since boards lose it."""
    clock = f"by this machine's clock it is {now:%Y-%m-%d %H:%M} UTC"
    if now < cert.not_valid_before_utc:
        raise UsageError(
            f"{path} is valid from {cert.not_valid_before_utc:%Y-%m-%d} and {clock}: set the clock"
        )
    if now > cert.not_valid_after_utc:
        raise UsageError(
            f"{path} was valid until {cert.not_valid_after_utc:%Y-%m-%d} and {clock}: "
            "set the clock if it is wrong, else make a new bundle"
        )


def _name_of(cert: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _read_cert(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise UsageError(f"{path} is not a certificate in PEM format: copy it again") from error


def _read_key(path: Path) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return cast("Key", load_pem_private_key(_read(path), password=None))
    except TypeError as error:
        raise UsageError(
            f"{path} is encrypted with a password, which is not supported: decrypt it"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is not a private key in PEM format: copy it again") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _need_library() -> None:
    """Raise UsageError with the install command if cryptography is missing."""
    try:
        import cryptography.x509  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "certificates need the library cryptography: pip install 'edgecap[fleet]'"
        ) from error
