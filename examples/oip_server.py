"""A small Open Inference Protocol v2 server for one ONNX file: the standard library and ONNX Runtime.

    python examples/oip_server.py model.onnx --name my-model --port 8080
    fingerprint verify http://127.0.0.1:8080/v2/models/my-model --against my-model

It serves on loopback only, for trying things out: it has no authentication and answers one request at a time.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATATYPES = {
    "tensor(float)": "FP32", "tensor(float16)": "FP16", "tensor(double)": "FP64", "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
}  # fmt: skip
DTYPES = {
    "FP32": "float32", "FP16": "float16", "FP64": "float64", "UINT8": "uint8", "INT8": "int8",
    "INT32": "int32", "INT64": "int64",
}  # fmt: skip
LARGEST = 256 * 1024 * 1024  # bytes of a request


class Server(ThreadingHTTPServer):
    """Serves one model.

    Args:
        model: an ONNX file with one input.
        name: of the model in URLs.
        port: 0 = any that is free; `server_port` tells which.
        binary: offer Triton's extension `binary_tensor_data`.
        threads: of ONNX Runtime; 0 = all cores.
    """

    daemon_threads = True

    def __init__(self, model: Path, name: str, port: int = 0, *, binary: bool = True, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.model, self.binary = name, binary
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """What to give to `fingerprint verify`."""
        return f"http://127.0.0.1:{self.server_port}/v2/models/{self.model}"

    def describe(self) -> dict[str, object]:
        """The model's metadata."""
        return {
            "name": self.model,
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [_tensor(i) for i in self.session.get_inputs()],
            "outputs": [_tensor(o) for o in self.session.get_outputs()],
        }


def _tensor(value: onnxruntime.NodeArg) -> dict[str, object]:
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return {"name": value.name, "datatype": DATATYPES[value.type], "shape": shape}


class Handler(BaseHTTPRequestHandler):
    """Health, metadata and inference."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """`/v2`, `/v2/health/...` and `/v2/models/NAME`."""
        server = cast(Server, self.server)
        extensions = ["binary_tensor_data"] if server.binary else []
        if self.path.rstrip("/") == "/v2":
            self.reply({"name": "oip_server.py", "version": "1", "extensions": extensions})
        elif self.path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{server.model}/ready"):
            self.reply({})
        elif self.path in (f"/v2/models/{server.model}", f"/v2/models/{server.model}/versions/1"):
            self.reply(server.describe())
        else:
            self.reply({"error": f"there is nothing at {self.path}"}, status=404)

    def do_POST(self) -> None:
        """`/v2/models/NAME/infer`."""
        server = cast(Server, self.server)
        size = int(self.headers.get("Content-Length", 0))
        if size > LARGEST:
            self.close_connection = True
            self.reply({"error": "the request is too large"}, status=413)
            return
        body = self.rfile.read(size)
        if self.path not in (f"/v2/models/{server.model}/infer", f"/v2/models/{server.model}/versions/1/infer"):
            self.reply({"error": f"there is nothing at {self.path}"}, status=404)
            return
        try:
            self.infer(server, body)
        except Exception as error:  # whatever a request makes the runtime say
            self.reply({"error": str(error)}, status=400)

    def infer(self, server: Server, body: bytes) -> None:
        """Answer one inference request."""
        head = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        request, rest = json.loads(body[:head]), body[head:]
        feed: dict[str, NDArray[np.generic]] = {}
        for tensor in request["inputs"]:
            dtype = np.dtype(DTYPES[tensor["datatype"]])
            size = tensor.get("parameters", {}).get("binary_data_size")
            values = np.array(tensor["data"], dtype) if size is None else np.frombuffer(rest[:size], dtype)
            rest = rest[size or 0 :]
            feed[tensor["name"]] = values.reshape(tensor["shape"])
        wanted = {o["name"]: o.get("parameters", {}) for o in request.get("outputs", [])}
        names = list(wanted) or [o.name for o in server.session.get_outputs()]
        types = {o.name: DATATYPES[o.type] for o in server.session.get_outputs()}
        outputs, data = [], b""
        for name, value in zip(names, server.session.run(names, feed), strict=True):
            entry: dict[str, object] = {"name": name, "datatype": types[name], "shape": list(value.shape)}
            if wanted.get(name, {}).get("binary_data"):
                entry["parameters"] = {"binary_data_size": value.nbytes}
                data += value.tobytes()
            else:
                entry["data"] = value.ravel().tolist()
            outputs.append(entry)
        self.reply({"model_name": server.model, "model_version": "1", "outputs": outputs}, data)

    def reply(self, value: object, data: bytes = b"", status: int = 200) -> None:
        """Send JSON, and binary tensors behind it."""
        head = json.dumps(value).encode()
        self.send_response(status)
        if data:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.send_header("Content-Type", "application/octet-stream" if data else "application/json")
        self.send_header("Content-Length", str(len(head) + len(data)))
        self.end_headers()
        self.wfile.write(head + data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("--name", default="model", help="of the model in URLs")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--plain", action="store_true", help="offer no binary tensors")
    given = parser.parse_args()
    with Server(given.model, given.name, given.port, binary=not given.plain) as server:
        print(f"serving {server.url}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
