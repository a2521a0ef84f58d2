"""A whole `fingerprint verify` process over a minimal script with the same runtime, for every runtime.

    python benchmarks/verify_speed.py --data DIR [--out .bench] [--runs 7] [--only pt2,onnx]

`verify` less `fingerprint --version`, over a script that imports the runtime, loads the file, feeds it the same number
of prepared inputs and prints the labels (`MINIMAL`, in `speed`, has those of ONNX Runtime and LiteRT). akamaster's
resnet20 and 100 probes, by a declared bound. Medians of interleaved runs. A runtime that is not installed, or whose
converter is not, is named and left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import speed
from speed import COMMAND, ENVIRONMENT, PROBES, process, verify_process

import fingerprint
from fingerprint.data import load_images
from fingerprint.errors import FingerprintError
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

TARGET = 1.3
WAYS = {  # suffix: how it is made of the owner's .pt2
    ".pt2": "compile:pt2",
    ".pt": "compile:torchscript",
    ".onnx": "compile:onnx",
    ".tflite": "compile:litert",
    ".pte": "compile:executorch",
    ".xml": "compile:openvino",
    ".param": "compile:ncnn",
    ".mnn": "compile:mnn",
}
SCRIPTS = {
    "pt2": """
import json, sys, numpy as np, torch
x = torch.from_numpy(np.load(sys.argv[2])); m = torch.export.load(sys.argv[1]).module()
with torch.inference_mode():
    print(json.dumps(m(x).argmax(1).tolist()))
""",
    "pt": """
import json, sys, numpy as np, torch
x = torch.from_numpy(np.load(sys.argv[2])); m = torch.jit.load(sys.argv[1])
with torch.inference_mode():
    print(json.dumps(m(x).argmax(1).tolist()))
""",
    "pte": """
import json, sys, numpy as np, torch
from executorch.runtime import Runtime
x = torch.from_numpy(np.load(sys.argv[2])); m = Runtime.get().load_program(sys.argv[1]).load_method("forward"); y = []
n = m.metadata.input_tensor_meta(0).sizes()[0]
for i in range(0, len(x), n):
    y += m.execute([x[i:i + n].contiguous()])[0].argmax(1).tolist()
print(json.dumps(y))
""",
    "xml": """
import json, sys, numpy as np, openvino as ov
x = np.load(sys.argv[2]); m = ov.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
y = [m(x[i:i + 25])[0].argmax(1) for i in range(0, len(x), 25)]
print(json.dumps(np.concatenate(y).tolist()))
""",
    "param": """
import json, sys, numpy as np, ncnn
x = np.load(sys.argv[2]); n = ncnn.Net(); n.load_param(sys.argv[1]); n.load_model(sys.argv[1][:-5] + "bin"); y = []
for row in x:
    e = n.create_extractor(); image = ncnn.Mat(row); e.input(n.input_names()[0], image)
    y.append(int(np.array(e.extract(n.output_names()[0])[1]).argmax()))
print(json.dumps(y))
""",
    "mnn": """
import json, sys, numpy as np, MNN
x = np.load(sys.argv[2]); m = MNN.Interpreter(sys.argv[1]); s = m.createSession({"numThread": 2})
i = m.getSessionInput(s); m.resizeTensor(i, x.shape); m.resizeSession(s)
kind, order = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe
i.copyFrom(MNN.Tensor(x.shape, kind, x, order)); m.runSession(s); o = m.getSessionOutput(s)
h = MNN.Tensor(o.getShape(), kind, np.zeros(o.getShape(), np.float32), order); o.copyToHostTensor(h)
print(json.dumps(np.array(h.getNumpyData()).argmax(1).tolist()))
""",
}


def main() -> None:
    """Make, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", help="suffixes without the dot, by commas")
    arguments = parser.parse_args()
    speed.MINIMAL.update(SCRIPTS)
    folder = arguments.out.resolve() / "verify-speed"
    folder.mkdir(parents=True, exist_ok=True)
    source, home = folder / "owner.pt2", folder / "home"
    shutil.copyfile(arguments.data / "cifar10/akamaster_resnet20.pt2", source)
    shutil.copyfile(sidecar_path(arguments.data / "cifar10/akamaster_resnet20.pt2"), sidecar_path(source))
    spec = load_spec(sidecar_path(source))
    images = load_images(arguments.data / "cifar10/test.zip", spec.image_shape, spec.classes, PROBES).images
    shutil.rmtree(home, ignore_errors=True)
    environment = {**ENVIRONMENT, "FINGERPRINT_HOME": str(home)}
    process([COMMAND, "keygen", "--no-passphrase"], environment)
    process([COMMAND, "create", str(source), "--name", "owner", "--declare-bound", "0.3", "--seed", "1"], environment)
    found: dict[str, float] = {}
    print(f"dnn-fingerprint {fingerprint.__version__}\n\n| file | verify over minimal | target |\n|---|---|---|")
    for suffix, how in WAYS.items():
        if arguments.only and suffix[1:] not in arguments.only.split(","):
            continue
        made = folder / suffix[1:] / f"suspect{suffix}"  # some are two files
        made.parent.mkdir(exist_ok=True)
        try:
            if not made.exists():
                derive(source, how, made, DeriveContext(spec))
            found[suffix] = verify_process(made, images, load_spec(sidecar_path(made)), home, "owner", arguments.runs)
        except FingerprintError as error:
            print(f"| {suffix} | not run: {error.message} | |", flush=True)
            continue
        print(f"| {suffix} | {found[suffix]:.2f} | <= {TARGET} |", flush=True)
    (arguments.out / "verify_speed.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
