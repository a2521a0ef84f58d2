"""Refuse network file systems: SQLite's locks and shared memory do not hold there."""

from __future__ import annotations

from pathlib import Path

from fingerprint.errors import StoreError

MOUNTINFO = Path("/proc/self/mountinfo")

# 9p and virtiofs are absent on purpose: sandboxes and virtual machines use them for a local disk of one host.
NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "wekafs",
        "fuse.afp",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.curlftpfs",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.moosefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.seaweedfs",
        "fuse.smbnetfs",
        "fuse.sshfs",
    }
)


def refuse_network(path: Path) -> None:
    """Raise when `path` (which need not exist yet) lies on a network file system.

    Raises:
        StoreError: it does.
    """
    kind = filesystem_of(path)
    if kind in NETWORK:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), where SQLite can lose data",
            remedy="Keep the database on a local disk (--db or FINGERPRINT_HOME), and move records with "
            "`fingerprint store export` and `import`.",
        )


def filesystem_of(path: Path) -> str | None:
    """Type of the file system that `path` lies on or would lie on, or None where the system does not tell."""
    try:
        text = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    place = path.resolve()
    best: tuple[int, str] | None = None
    for point, kind in _mounts(text):
        if place.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), kind)  # a later mount hides an earlier one on the same point
    return best[1] if best else None


def _mounts(text: str) -> list[tuple[Path, str]]:
    """(mount point, type) per line; see proc(5), "mountinfo"."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if dash and len(fields) > 4 and kinds[0]:
            found.append((Path(_unescape(fields[4])), kinds[0]))
    return found


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
