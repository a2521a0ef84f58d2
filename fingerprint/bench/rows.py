"""Rows of the tables: what suspects go through. Grammar of `--how`: docs/transformations.md."""

from __future__ import annotations

from fingerprint.bench.plan import Row

COMPRESSION, FINE_TUNING, HEAVY = "compression", "fine-tuning", "heavy pruning"
DISTILLATION, ADVERSARIAL, OTHER = "distillation", "adversarial training", "other"


def _training(scale: str) -> dict[str, str]:
    """Keys of training steps by what they do."""
    full = scale == "full"
    return {
        "tune": "epochs=10" if full else "epochs=3:images=5000",
        "retrain": "epochs=20" if full else "epochs=2:images=8000",
        "distil": "epochs=60" if full else "epochs=5:images=8000",
        "adversarial": "epochs=10:steps=5" if full else "epochs=2:steps=3:images=5000",
    }


def _patient(kind: str) -> Row:
    """A student that learns until it is about as good as nets trained from scratch at the small scale."""
    return Row(f"distil {kind}, other, patient", DISTILLATION, f"distil:{kind}:{{other}}:epochs=10")


def rows(scale: str) -> tuple[Row, ...]:
    """The rows of the real benchmark: cheap ones first, then those that the targets name, then the others."""
    keys = _training(scale)
    tune, distil = keys["tune"], keys["distil"]
    pruned = [Row(f"prune {s:.0%}", COMPRESSION, f"prune:magnitude:{s}", x=s) for s in (0.3, 0.5, 0.7)]
    narrow = [Row(f"weights int{b}", COMPRESSION, f"quantize:int{b}", x=b) for b in (8, 6, 5, 4)]
    patient = [] if scale == "full" else [_patient(kind) for kind in ("soft", "hard")]
    return (
        *pruned,
        *narrow,
        Row("2:4 sparsity", COMPRESSION, "prune:nm:2:4"),
        Row("ONNX", COMPRESSION, "compile:onnx", ".onnx"),
        Row("ONNX static int8", COMPRESSION, "quantize:static:int8", ".onnx"),
        Row("fine-tune last", FINE_TUNING, f"finetune:last:{tune}"),
        Row("fine-tune all", FINE_TUNING, f"finetune:all:{tune}"),
        Row("retrain last", FINE_TUNING, f"finetune:reset-last:{tune}"),
        Row("retrain all", FINE_TUNING, f"finetune:reset-all:{tune}"),
        Row("noise + fine-tune", FINE_TUNING, f"noise:0.1+finetune:all:{tune}"),
        Row("distil soft, other", DISTILLATION, f"distil:soft:{{other}}:{distil}"),
        Row("distil hard, other", DISTILLATION, f"distil:hard:{{other}}:{distil}"),
        Row("adversarial 4/255", ADVERSARIAL, f"advtrain:4:{keys['adversarial']}"),
        Row("prune 90%, retrained", HEAVY, f"prune:magnitude:0.9+retrain:{keys['retrain']}", x=0.9),
        Row("distil soft, same", DISTILLATION, f"distil:soft:same:{distil}"),
        Row("distil hard, same", DISTILLATION, f"distil:hard:same:{distil}"),
        *patient,
        Row("JPEG filter", OTHER, "filter:jpeg:75"),
        Row("bit flips", OTHER, "fault:flip8:5"),
        Row("backdoor", OTHER, f"backdoor:0:{tune}"),
        Row("QAT int4", OTHER, f"quantize:qat:int4:{tune}"),
    )
