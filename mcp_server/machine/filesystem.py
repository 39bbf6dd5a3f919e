"""Which file system a folder lies on. SQLite's WAL and our locks need one that is this machine's own."""

from pathlib import Path

import psutil

_FUSE = {f"fuse.{name}" for name in ("glusterfs", "rclone", "s3fs", "sshfs")}
_OTHERS = {"9p", "afpfs", "afs", "beegfs", "ceph", "davfs", "drvfs", "gfs2", "gpfs", "lustre", "ocfs2", "webdav"}
NETWORK = _FUSE | _OTHERS | {"cifs", "nfs", "nfs3", "nfs4", "smb", "smb2", "smb3", "smbfs"}


def file_system(path: Path) -> str:
    """The type of the file system that `path`, or its nearest parent that exists, lies on; empty where unknown."""
    place = next(parent for parent in (path, *path.parents) if parent.exists()).resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "")
