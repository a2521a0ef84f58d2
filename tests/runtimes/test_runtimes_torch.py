"""torch: every format answers like the network itself, and hostile pickles never run."""

from pathlib import Path

import engine_models
import numpy as np
import pytest
import torch
from engine_models import FACTORY, IMAGES, expected

from fingerprint.errors import UnreadableModel, UnsupportedModel, UsageError
from fingerprint.model import Signature
from fingerprint.runtimes.digest import weights_sha256
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.registry import runtime_named

RUNTIME = runtime_named("torch")
WITH_FACTORY = LoadOptions(factory=FACTORY)
BATCH = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2), np.float32) / 255
FORMATS = ["pt2", "torchscript", "state-dict", "safetensors"]


def test_a_program_without_an_upper_bound(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(engine_models.network(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    assert RUNTIME.load(tmp_path / "m.pt2", "pt2", LoadOptions()).batch_range == (1, None)


@pytest.mark.parametrize("format", FORMATS)
def test_answers_like_the_network_in_any_batch(files: dict[str, Path], format: str) -> None:
    loaded = RUNTIME.load(files[format], format, WITH_FACTORY)
    answers = loaded.predict(BATCH)
    assert answers.dtype == np.float32 and answers.shape == (16, 10)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([loaded.predict(BATCH[i : i + 1]) for i in range(16)]), answers, atol=1e-5
    )


@pytest.mark.parametrize("format", FORMATS)
def test_gradients(files: dict[str, Path], format: str) -> None:
    module = RUNTIME.load(files[format], format, WITH_FACTORY).differentiable()
    images = torch.from_numpy(BATCH).requires_grad_(True)
    module(images).square().sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_the_same_in_every_container(files: dict[str, Path], format: str) -> None:
    weights = RUNTIME.weights(files[format], format)
    reference = {k: v.numpy() for k, v in engine_models.network().state_dict().items()}
    assert weights.keys() == reference.keys()
    assert all((weights[k] == reference[k]).all() for k in reference)
    assert weights_sha256(weights) == weights_sha256(reference)


def test_read_only_input(files: dict[str, Path]) -> None:
    frozen = BATCH.copy()
    frozen.flags.writeable = False
    assert RUNTIME.load(files["torchscript"], "torchscript", LoadOptions()).predict(frozen).shape == (16, 10)


def test_signature_of_a_program(files: dict[str, Path], tmp_path: Path) -> None:
    loaded = RUNTIME.load(files["pt2"], "pt2", LoadOptions())
    assert loaded.signature == Signature((None, 1, 8, 8), "float32", output_shape=(None, 10), classes=10)
    assert loaded.batch_range == (1, 64)
    fixed = RUNTIME.load(engine_models.write_pt2(tmp_path / "fixed.pt2", batch=4), "pt2", LoadOptions())
    assert fixed.signature.batch == 4 and fixed.batch_range == (4, 4)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        fixed.predict(BATCH[:3])


def test_unknown_signatures(files: dict[str, Path]) -> None:
    assert RUNTIME.load(files["torchscript"], "torchscript", LoadOptions()).signature.shape == ()
    assert RUNTIME.load(files["state-dict"], "state-dict", WITH_FACTORY).signature.shape == ()


def test_first_of_several_outputs(tmp_path: Path) -> None:
    class Two(engine_models.Tiny):
        def forward(self, images: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
            answer = super().forward(images)
            return {"first": (answer, answer * 2)}

    path = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(Two().eval(), (torch.zeros(2, 1, 8, 8),)), path)
    loaded = RUNTIME.load(path, "pt2", LoadOptions())
    assert loaded.predict(BATCH[:2]).shape == (2, 10) and loaded.signature.classes == 10


def test_two_inputs_are_unsupported(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    torch.export.save(torch.export.export(Two(), (torch.zeros(2), torch.zeros(2))), tmp_path / "two.pt2")
    with pytest.raises(UnsupportedModel, match="2 inputs"):
        RUNTIME.load(tmp_path / "two.pt2", "pt2", LoadOptions())


def test_half_precision(tmp_path: Path) -> None:
    path = engine_models.write_script(tmp_path / "half.pt", engine_models.network().half())
    np.testing.assert_allclose(RUNTIME.load(path, "torchscript", LoadOptions()).predict(BATCH), expected(), atol=0.05)


def test_wrapped_checkpoint(tmp_path: Path) -> None:
    path = engine_models.write_state(tmp_path / "wrapped.pth", wrap=True)
    np.testing.assert_allclose(RUNTIME.load(path, "state-dict", WITH_FACTORY).predict(BATCH), expected(), atol=1e-5)


def test_legacy_pickle(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pth"
    torch.save(engine_models.network().state_dict(), path, _use_new_zipfile_serialization=False)
    np.testing.assert_allclose(RUNTIME.load(path, "pickle", WITH_FACTORY).predict(BATCH), expected(), atol=1e-5)


def test_without_a_factory(files: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        RUNTIME.load(files["state-dict"], "state-dict", LoadOptions())
    assert "--factory module:callable" in caught.value.remedy


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("nonsense", "form module:callable"),
        ("no_such_module:thing", "can't be found"),
        ("engine_models:no_such_thing", "can't be found"),
        ("engine_models:inputs", "not a torch.nn.Module"),
        ("engine_models:expected_nothing", "can't be found"),
        ("pathlib:Path.cwd", "can't be found"),
        ("math:sqrt", "failed: TypeError"),
    ],
)
def test_wrong_factories(files: dict[str, Path], factory: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RUNTIME.load(files["safetensors"], "safetensors", LoadOptions(factory=factory))


def test_weights_of_another_network(tmp_path: Path) -> None:
    state = engine_models.network().state_dict()
    del state["head.bias"]
    torch.save(state | {"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UnreadableModel, match=r"missing head\.bias; unexpected other\.weight"):
        RUNTIME.load(tmp_path / "other.pth", "state-dict", WITH_FACTORY)
    torch.save(engine_models.network().state_dict() | {"head.bias": torch.zeros(11)}, tmp_path / "size.pth")
    with pytest.raises(UnreadableModel, match="do not fit"):
        RUNTIME.load(tmp_path / "size.pth", "state-dict", WITH_FACTORY)


@pytest.mark.parametrize("raw", [False, True])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, raw: bool) -> None:
    marker = tmp_path / "marker"
    path = engine_models.write_bomb(tmp_path / "bomb.pth", marker, raw=raw)
    for act in (lambda f: RUNTIME.load(path, f, WITH_FACTORY), lambda f: RUNTIME.weights(path, f)):
        with pytest.raises(UnsupportedModel, match="refused and nothing ran"):
            act("pickle" if raw else "state-dict")
    assert not marker.exists()


def test_weights_of_a_program_execute_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    evil = engine_models.write_pt2_bomb(tmp_path / "evil.pt2", files["pt2"], marker)
    assert len(RUNTIME.weights(evil, "pt2")) == 4
    assert not marker.exists()


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(UnsupportedModel, match="not a state dict"):
        RUNTIME.load(tmp_path / "list.pth", "state-dict", WITH_FACTORY)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UnsupportedModel, match="no tensor"):
        RUNTIME.load(tmp_path / "empty.pth", "state-dict", WITH_FACTORY)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated(files: dict[str, Path], tmp_path: Path, format: str) -> None:
    whole = files[format].read_bytes()
    for cut in (0, 10, len(whole) // 3, len(whole) - 30):
        path = tmp_path / f"{cut}.bin"
        path.write_bytes(whole[:cut])
        with pytest.raises(UnreadableModel):
            RUNTIME.load(path, format, WITH_FACTORY)
