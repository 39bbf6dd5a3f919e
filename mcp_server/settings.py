"""The settings of this process: read once at an entry point and handed down, never read again."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where things are and what this process may do.

    Attributes:
        repo: a folder inside the git repository to research in.
        state: the folder for the store, workspaces and trials; None means `.autoresearch` in the repository.
        cache: the folder for prepared data and compile caches, shared by all repositories.
        locks: the machine-local folder of the device locks, shared by all repositories.
        devices: `auto`, a list such as `cuda:0,1`, or `cpu:N` for N simulated slots.
        data: prepared data to train on, by its folder or its name in the cache; None means what was prepared last.
        sandbox: whether trainings run behind walls: `auto` where bubblewrap works, `off`, or `require`.
        keep_environment: names of further environment variables that trainings may see.
        executor: where trainings run: `local`, on the devices of this machine, or `ray`, on those of a Ray cluster.
        groups: whether a training's effort may be counted in a control group, where the system lets it be made.
        ray_address: the cluster's `host:port`; `auto` means the one that this machine has joined.
    """

    repo: Path
    state: Path | None
    cache: Path
    locks: Path
    devices: str = "auto"
    data: str | None = None
    keep_environment: tuple[str, ...] = ()
    sandbox: str = "auto"
    executor: str = "local"
    ray_address: str = "auto"
    groups: bool = True

    @classmethod
    def load(
        cls,
        repo: Path | None = None,
        devices: str | None = None,
        executor: str | None = None,
        ray_address: str | None = None,
    ) -> "Settings":
        """Read the environment; the arguments win over it."""
        environ = os.environ
        state = environ.get("AUTORESEARCH_STATE")
        cache = environ.get("AUTORESEARCH_CACHE") or "~/.cache/autoresearch"
        locks = environ.get("AUTORESEARCH_LOCKS") or f"/tmp/autoresearch-{os.getuid()}"  # noqa: S108 - machine-local
        return cls(
            repo=(repo or Path.cwd()).expanduser().absolute(),
            state=Path(state).expanduser().absolute() if state else None,
            cache=Path(cache).expanduser().absolute(),
            locks=Path(locks).expanduser().absolute(),
            devices=devices or environ.get("AUTORESEARCH_DEVICES") or "auto",
            data=environ.get("AUTORESEARCH_DATA") or None,
            keep_environment=tuple(environ.get("AUTORESEARCH_KEEP_ENV", "").replace(",", " ").split()),
            sandbox=environ.get("AUTORESEARCH_SANDBOX") or "auto",
            executor=executor or environ.get("AUTORESEARCH_EXECUTOR") or "local",
            ray_address=ray_address or environ.get("RAY_ADDRESS") or "auto",
            groups=environ.get("AUTORESEARCH_CGROUPS") != "off",
        )
