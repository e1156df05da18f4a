"""CURVE keys: who may read masks, who may steer the engine. `python -m streaming.keys new DIR`.

    DIR/server/{data,control}.secret            the engine's own, 0600; never leaves the machine
    DIR/authorised/{data,control}/NAME.public   clients that may connect; delete one to lock it out
    DIR/clients/NAME/{data,control}.secret      a client's own, 0600; copy the folder to the client
    DIR/clients/NAME/{data,control}.server      the engine's public key, by which the client knows it

The engine takes `--keys DIR`, a client `keys="DIR/clients/NAME"`. Every file is one line, a key in Z85 (ZeroMQ RFC 32).
"""

import argparse
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import zmq

from engine.errors import EngineError, StoreError, UsageError

Channel = Literal["data", "control"]
CHANNELS: tuple[Channel, ...] = ("data", "control")

_Z85_KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ServerKeys:
    """The engine's key pair for one channel, Z85, and the folder of the public keys that may connect."""

    channel: Channel
    public: bytes
    secret: bytes = field(repr=False)
    authorised: Path


@dataclass(frozen=True)
class ClientKeys:
    """A client's key pair for one channel and the public key of the engine it trusts, Z85."""

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes


def create(folder: Path, client: str = "client") -> None:
    """Make keys for an engine, separate for data and control, and for a first client.

    Raises:
        UsageError: the folder holds keys already, or the client's name cannot be a file name.
        StoreError: the folder cannot be written.
    """
    _check_name(client)
    if (folder / "server").exists():
        raise UsageError(f"keys {folder}: there are keys already; add a client, or choose another folder")
    for channel in CHANNELS:
        _write_secret(folder / "server" / f"{channel}.secret", zmq.curve_keypair()[1])
    add_client(folder, client)


def add_client(folder: Path, name: str, channels: Sequence[Channel] = CHANNELS) -> Path:
    """Make keys for one more client and let them in at once; returns the folder to hand over.

    Args:
        channels: `("data",)` for one that may read masks and steer nothing.

    Raises:
        UsageError: no keys in `folder`, or the name is taken or cannot be a file name.
        StoreError: the folder cannot be written.
    """
    _check_name(name)
    own = folder / "clients" / name
    if own.exists() or any((folder / "authorised" / channel / f"{name}.public").exists() for channel in CHANNELS):
        raise UsageError(f"keys {folder}: there is a client {name} already; revoke it or choose another name")
    for channel in channels:
        server = load_server(folder, channel)
        public, secret = zmq.curve_keypair()
        _write_secret(own / f"{channel}.secret", secret)
        _write(own / f"{channel}.server", server.public, 0o644)
        _write(folder / "authorised" / channel / f"{name}.public", public, 0o644)
    return own


def revoke(folder: Path, name: str) -> None:
    """Refuse every further connection of a client; one that stands goes on until it drops.

    Raises:
        UsageError: no such client.
    """
    _check_name(name)
    files = [folder / "authorised" / channel / f"{name}.public" for channel in CHANNELS]
    known = [file for file in files if file.exists()]
    if not known:
        raise UsageError(f"keys {folder}: no client {name} is authorised")
    for file in known:
        file.unlink()


def load_server(folder: Path | str, channel: Channel) -> ServerKeys:
    """The engine's keys for `channel`.

    Raises:
        UsageError: missing, not a key, or a secret that other users of the machine can read.
    """
    secret = _read_secret(Path(folder) / "server" / f"{channel}.secret")
    return ServerKeys(channel, zmq.curve_public(secret), secret, Path(folder) / "authorised" / channel)


def load_client(folder: Path | str, channel: Channel) -> ClientKeys:
    """A client's keys for `channel`.

    Raises:
        UsageError: missing, not a key, or a secret that other users of the machine can read.
    """
    secret = _read_secret(Path(folder) / f"{channel}.secret")
    return ClientKeys(zmq.curve_public(secret), secret, _read(Path(folder) / f"{channel}.server"))


def is_authorised(keys: ServerKeys, public: bytes) -> bool:
    """True when `public` (Z85) lies in the folder now, so that additions and removals need no restart."""
    for file in keys.authorised.glob("*.public"):
        try:
            if file.read_bytes().strip() == public:
                return True
        except OSError:
            continue  # gone since the listing, or unreadable: authorises nobody
    return False


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"client name {name!r}: up to 64 letters, digits, '_', '.' and '-' are needed")


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes()[:100].strip()
    except OSError as error:
        hint = "make keys with: python -m streaming.keys new DIR"
        raise UsageError(f"key {path}: {error.strerror or error}; {hint}") from None
    if not _Z85_KEY.fullmatch(key):
        raise UsageError(f"key {path}: not a key (40 characters of Z85 are needed)")
    return key


def _read_secret(path: Path) -> bytes:
    key = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(f"key {path}: others can read it (mode {mode:04o}, at most 0600 is needed); chmod 600 it")
    return key


def _write_secret(path: Path, key: bytes) -> None:
    _write(path, key, 0o600)


def _write(path: Path, key: bytes, mode: int) -> None:
    """Write a new file of exactly `mode`, never through a link or over what is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(key + b"\n")
    except OSError as error:
        raise StoreError(f"key {path}: cannot be written ({error.strerror or error})") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streaming.keys", description="Keys for --keys: encryption and who may connect."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="keys for an engine and a first client")
    new.add_argument("folder", type=Path, metavar="DIR")
    new.add_argument("--client", default="client", metavar="NAME", help="name of the first client (default: client)")
    client = actions.add_parser("client", help="keys for one more client")
    client.add_argument("folder", type=Path, metavar="DIR")
    client.add_argument("name", metavar="NAME")
    client.add_argument("--data-only", action="store_true", help="may read masks, may not steer the engine")
    gone = actions.add_parser("revoke", help="lock a client out")
    gone.add_argument("folder", type=Path, metavar="DIR")
    gone.add_argument("name", metavar="NAME")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 ok, 2 usage, 5 cannot be written)."""
    options = _parser().parse_args(argv)
    try:
        if options.action == "new":
            create(options.folder, options.client)
            print(f"engine: --keys {options.folder}\nclient: keys={str(options.folder / 'clients' / options.client)!r}")
        elif options.action == "client":
            own = add_client(options.folder, options.name, ("data",) if options.data_only else CHANNELS)
            print(f"client: keys={str(own)!r}")
        else:
            revoke(options.folder, options.name)
            print(f"{options.name} can no longer connect; restart the engine to cut connections that stand")
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
