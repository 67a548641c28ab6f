"""A token server whose tokens Debian's registry accepts: real JWTs, signed with keys made at test time."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from ocidist.server import tokens
from tests.parts import secrets

ISSUER = "ocidist test tokens"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Signer:
    """A key, its certificate, and JWTs that the registry's ``rootcertbundle`` accepts.

    ``algorithm`` is ES256 or RS256; ``header`` names the key by certificate (``x5c``) or by fingerprint (``kid``).
    """

    def __init__(self, folder: Path, *, algorithm: str = "ES256", header: str = "x5c") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.algorithm, self.header = algorithm, header
        self.key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        if algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "RS256":
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            raise ValueError(f"no such algorithm here: {algorithm}")
        now = datetime.datetime.now(datetime.timezone.utc)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.bundle = folder / f"tokens-{self.certificate.serial_number:x}.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def key_id(self) -> str:
        """The key's fingerprint in the registry's spelling: 30 bytes of SHA-256, base32, in groups of four."""
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
        return ":".join(text[at : at + 4] for at in range(0, len(text), 4))

    def sign(self, claims: dict[str, Any]) -> str:
        """``claims`` as a compact JWS."""
        head: dict[str, Any] = {"typ": "JWT", "alg": self.algorithm}
        if self.header == "x5c":
            der = self.certificate.public_bytes(serialization.Encoding.DER)
            head["x5c"] = [base64.b64encode(der).decode()]
        else:
            head["kid"] = self.key_id()
        message = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}".encode()
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{message.decode()}.{_b64(signature)}"


class TokenServer(tokens.TokenServer):
    """The token server with a key of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        tls: ssl.SSLContext | None = None,
        policy: tokens.Policy | None = None,
        algorithm: str = "ES256",
        header: str = "x5c",
        realm: str | None = None,
        service: str = "ocidist-test-registry",
    ) -> None:
        self.signer = Signer(folder, algorithm=algorithm, header=header)
        super().__init__(
            self.signer.sign,
            issuer=ISSUER,
            service=service,
            policy=policy,
            realm=realm,
            tls=tls,
            make_secret=secrets.make,
        )
