"""Settings of `torpor serve`: flags over `TORPOR_*` variables over defaults, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import psutil
from packaging.utils import InvalidName, NormalizedName, canonicalize_name
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from torpor_api.data_dir import default_data_dir
from torpor_snapshotter.key_store_url import open_key_store
from torpor_snapshotter.store_url import locate

MIB = 1024 * 1024
FOR_EVER = "forever"
SHARE_OF_HOST_MEMORY = 0.6
"""Of the host's memory, what awake machines may use together unless a setting says otherwise."""
MOST_IN_ADVANCE = 24
MEMORY_TO_SPARE_BYTES = 2048 * MIB
"""With less for all awake machines, nothing waits unless a setting says so."""
LARGEST_DURATION_SECONDS = 366 * 24 * 3600.0

ACCOUNT_PATTERN = r"[A-Za-z0-9_-]{1,64}"
SECRET_PATTERN = r"[A-Za-z0-9_-]{16,128}"  # noqa: S105 (a pattern, not a secret)


class BadSettings(Exception):
    """A setting has a value that cannot be used; the message names the variable and says why."""


def _listen(value: str) -> str:
    split_address(value)
    return value


def split_address(value: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`. Raises `ValueError`."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("write it as host:port, for example 127.0.0.1:8000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address belongs in brackets, for example [::1]:8000")
    return host, int(port)


def _sqlite_only(value: str | None) -> str | None:
    if value is not None and not value.startswith("sqlite:"):
        raise ValueError("only sqlite: is there for now, for example sqlite:////var/lib/torpor/torpor.db")
    return value


def _store_url(value: str | None) -> str | None:
    if value is not None:
        locate(value)
    return value


def _keys_url(value: str | None) -> str | None:
    if value is not None:
        open_key_store(value)
    return value


def _bootstrap_key(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.fullmatch(rf"{ACCOUNT_PATTERN}\.{SECRET_PATTERN}", value.get_secret_value()):
        raise ValueError("write it as <account>.<secret>: letters, digits, - and _, the secret at least 16 of them")
    return value


def _size(value: object) -> object:
    """Say which units there are when a size has another one (pydantic would name them all, in bits too)."""
    if isinstance(value, str) and not re.fullmatch(r"\s*\d+(\.\d+)?\s*([KMGT]i?)?B?\s*", value, re.IGNORECASE):
        raise ValueError("write a size as a number with a unit of KiB, MiB or GiB, for example 512MiB")
    return value


def _web_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("give the index's address, which begins with http:// or https://")
    return value


def _names(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return frozenset(_name(name.strip()) for name in value.split(",") if name.strip())
    except InvalidName:
        raise ValueError("give names of packages with commas between them, or *") from None


def _name(name: str) -> NormalizedName | str:
    return name if name == "*" else canonicalize_name(name, validate=True)


Size = Annotated[ByteSize, BeforeValidator(_size)]
Seconds = Annotated[float, Field(gt=0, le=LARGEST_DURATION_SECONDS, allow_inf_nan=False)]


def _days(value: object) -> object:
    return None if value == FOR_EVER else value


Days = Annotated[Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None, BeforeValidator(_days)]


class Config(BaseSettings):
    """Everything that can be set. Sizes are bytes, durations seconds."""

    model_config = SettingsConfigDict(env_prefix="TORPOR_", frozen=True, extra="ignore", env_ignore_empty=True)

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8000"
    """Where the API listens."""
    data_dir: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        default_factory=default_data_dir
    )
    """The folder that holds the database, the store, keys, runtimes and local images."""
    database_url: Annotated[str | None, AfterValidator(_sqlite_only)] = None
    """The ledger's database; by default `torpor.db` in the data folder."""
    store_url: Annotated[str | None, AfterValidator(_store_url)] = None
    """Where snapshots are kept; by default `store` in the data folder."""
    keys_url: Annotated[str | None, AfterValidator(_keys_url)] = None
    """Where the keys of machines are kept; by default `keys` in the data folder."""
    store_cache: Size = ByteSize(4 * 1024 * MIB)
    """What may be kept on the disk of what was read of a store elsewhere; 0: nothing."""
    keep_runtimes: bool = True
    """Whether runtimes that snapshots need are put into the store too, so that another host finds them there."""
    idle_seconds: Seconds = 60.0
    """After how long without an instruction a machine falls asleep, unless it has a value of its own."""
    quiet_save_seconds: Seconds = 2.0
    """After how long without an instruction a machine is saved without stopping."""
    replay_seconds: Seconds = 300.0
    """How much running time a recovery may execute again, on a machine without a value of its own."""
    save_interval_seconds: Seconds = 60.0
    """A machine that is never quiet is saved this often, also in the middle of an instruction."""
    memory_per_machine: Annotated[Size, Field(ge=256 * MIB)] = ByteSize(1024 * MIB)
    """What a machine may use, unless it asked for something else."""
    memory_total: Annotated[Size, Field(ge=256 * MIB)] | None = None
    """What all awake machines may use together; over it the longest idle falls asleep."""
    warm_machines: Annotated[int, Field(ge=0, le=64)] | None = None
    """The most sandboxes that wait for new machines of one template; by default 24 where there is memory to spare."""
    spare_sandboxes: Annotated[int, Field(ge=0, le=64)] | None = None
    """The most sandboxes that wait for machines to wake in; by default 24 where there is memory to spare."""
    uploads_per_account: Annotated[Size, Field(ge=MIB)] = ByteSize(16 * 1024 * MIB)
    """What uploads of one account may take on the server's disk, until no recovery needs them."""
    disk_reserve: Size = ByteSize(1024 * MIB)
    """Uploads are refused that would leave less free on the disk of the data folder."""
    output_limit: Annotated[Size, Field(ge=1024, le=1024 * MIB)] = ByteSize(8 * MIB)
    """How much output of one instruction is kept; the rest is counted."""
    timeout_seconds: Annotated[Seconds, Field(ge=1)] = 15.0
    """An instruction's time-out when it names none."""
    timeout_maximum_seconds: Annotated[Seconds, Field(ge=1)] = 3600.0
    """The longest time-out that an instruction may ask for."""
    log_days: Days = 365.0
    """How long code and results of instructions are kept; None: for ever."""
    output_days: Days = 30.0
    """The same for their output."""
    events_days: Days = 90.0
    """The same for what happened to machines."""
    package_index: Annotated[SecretStr | None, AfterValidator(_web_url)] = None
    """The simple index, in JSON (PEP 691), whose wheels machines may be handed; without one there are no packages."""
    package_allow: Annotated[frozenset[str], NoDecode, BeforeValidator(_names)] = frozenset()
    """The packages that machines may ask for, with what these need: names with commas between them, or `*` for all."""
    package_bytes: Annotated[Size, Field(ge=1024, le=512 * MIB)] = ByteSize(128 * MIB)
    """What the wheels of one request may take together."""
    drain_seconds: Seconds = 60.0
    """How long a stop may take to save every awake machine."""
    adopt: bool = True
    """Whether sandboxes that have outlived a killed server are gone on with; otherwise their machines are recovered."""
    bootstrap_api_key: Annotated[SecretStr | None, AfterValidator(_bootstrap_key)] = None
    """`<account>.<secret>`: the first API key, instead of a random one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.timeout_seconds > self.timeout_maximum_seconds:
            raise ValueError("TORPOR_TIMEOUT_SECONDS must not be more than TORPOR_TIMEOUT_MAXIMUM_SECONDS")
        if self.memory_total is not None and self.memory_total < self.memory_per_machine:
            raise ValueError("TORPOR_MEMORY_TOTAL must not be less than TORPOR_MEMORY_PER_MACHINE")
        return self

    @property
    def database(self) -> str:
        """The ledger's URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'torpor.db'}"

    @property
    def store(self) -> str:
        """The store's URL."""
        return self.store_url or (self.data_dir / "store").as_uri()

    @property
    def keys(self) -> str:
        """The key store's URL."""
        return self.keys_url or (self.data_dir / "keys").as_uri()

    @property
    def memory_total_bytes(self) -> int:
        """What all awake machines may use together, in bytes."""
        if self.memory_total is not None:
            return int(self.memory_total)
        return max(int(self.memory_per_machine), int(psutil.virtual_memory().total * SHARE_OF_HOST_MEMORY))

    @property
    def warm_machine_count(self) -> int:
        """The most sandboxes that wait for new machines of one template."""
        return self._most_in_advance if self.warm_machines is None else self.warm_machines

    @property
    def spare_sandbox_count(self) -> int:
        """The most sandboxes that wait for machines to wake in."""
        return self._most_in_advance if self.spare_sandboxes is None else self.spare_sandboxes

    @property
    def _most_in_advance(self) -> int:
        return MOST_IN_ADVANCE if self.memory_total_bytes >= MEMORY_TO_SPARE_BYTES else 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return split_address(self.listen)


def read_config(flags: Mapping[str, Any]) -> Config:
    """The settings in force; a flag that is None was not given. Raises `BadSettings`."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Config(**given)
    except ValidationError as error:
        raise BadSettings("\n".join(_sentence(problem, given) for problem in error.errors())) from None


def _sentence(problem: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    reason = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return reason
    name = str(problem["loc"][0])
    where = f"--{name.replace('_', '-')}" if name in flags else f"TORPOR_{name.upper()}"
    return f"{where}: {reason}"
