"""Every bound in one place, each with its unit."""

from __future__ import annotations

from fingerprint.frozen import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """What a suspect, a file or a message may cost at most."""

    model_bytes: int = 4 * GIB  # size of one model file
    header_bytes: int = 100 * MIB  # safetensors header, JSON inside archives
    archive_members: int = 100_000  # entries in a zip
    archive_bytes: int = 16 * GIB  # sum of the unpacked sizes
    archive_depth: int = 5  # archives inside archives that are unpacked
    archive_ratio: int = 1000  # unpacked bytes over packed ones, past the first 64 MiB
    unpack_memory_bytes: int = 256 * MIB  # dictionary of an xz or Zstandard stream
    member_name_bytes: int = 4 * KIB  # name of one member of an archive
    pieces: int = 10_000  # files that one split model may have
    list_line_bytes: int = 64 * KIB  # one path in a list of suspects
    listing_bytes: int = 16 * MIB  # an index or configuration file beside models
    spec_bytes: int = 64 * KIB  # an input spec
    record_bytes: int = 1 * GIB  # an exported fingerprint
    image_bytes: int = 64 * MIB  # one encoded image
    image_pixels: int = 64_000_000  # one decoded image
    data_images: int = 200_000  # images read from --data
    message_header_bytes: int = 1 * MIB  # JSON header of a worker message
    message_bytes: int = 2 * GIB  # arrays of a worker message
    response_bytes: int = 64 * MIB  # one answer of a remote host; a file of answers given by hand
    labels: int = 100_000  # classes of a suspect that tells labels only
    outputs_per_input: int = 4_000_000  # numbers that a model may answer per input
    worker_memory_bytes: int = 8 * GIB  # address space a worker may take beyond its start
    worker_cpu_s: int = 1200  # CPU seconds of one suspect
    load_s: float = 120.0  # wall seconds to open a suspect
    predict_s: float = 600.0  # wall seconds for one pass over all probes
    start_s: float = 120.0  # wall seconds for a worker server to import its runtime
    busy_ms: int = 5_000  # SQLite busy timeout


DEFAULT = Limits()
