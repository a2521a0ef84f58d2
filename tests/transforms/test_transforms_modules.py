"""Steps that build a graph around or out of models: averages, ensembles, dropout, filters, smaller nets."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transforms_digits as nets
from PIL import Image

from fingerprint.errors import TransformError
from fingerprint.model import InputSpec
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.pictures import filtered
from fingerprint.transforms.pixels import Pixels
from fingerprint.transforms.weights import read_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    nets.save(nets.train(nets.network(0), 0), made / "one.pt2")
    nets.save(nets.train(nets.network(1), 1), made / "two.pt2")
    nets.save(nets.network(2, width=8).eval(), made / "small.pt2")
    return made


def inputs(count: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype(np.float32))


def ask(path: Path, given: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.export.load(path).module()(given)


def test_average(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.pt2"
    derive(folder / "one.pt2", f"average:0.25:{folder / 'two.pt2'}", out, nets.context(measure=False))
    one, two, made = (torch.export.load(path).state_dict for path in (folder / "one.pt2", folder / "two.pt2", out))
    assert one.keys() == made.keys()
    for name, value in made.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * one[name] + 0.25 * two[name])


def test_models_of_other_architectures_have_no_average(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="another architecture"):
        derive(folder / "one.pt2", f"average:0.5:{folder / 'small.pt2'}", tmp_path / "m.pt2", nets.context())
    with pytest.raises(TransformError, match="no such model file"):
        derive(folder / "one.pt2", "ensemble:missing.pt2", tmp_path / "m.pt2", nets.context())
    assert not list(tmp_path.iterdir())


def test_ensemble_feeds_each_model_by_its_own_spec(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt2"
    other.write_bytes((folder / "two.pt2").read_bytes())
    spec = replace(nets.SPEC, mean=(0.1,), std=(0.5,))
    other.with_name("other.pt2.spec.json").write_text(json.dumps(spec.to_dict()))
    derive(folder / "one.pt2", f"ensemble:{other}", tmp_path / "made.pt2", nets.context(measure=False))
    given = inputs()
    turned = ((given * 0.35 + 0.3) - 0.1) / 0.5
    expected = (ask(folder / "one.pt2", given).softmax(1) + ask(other, turned).softmax(1)) / 2
    torch.testing.assert_close(ask(tmp_path / "made.pt2", given), expected, rtol=1e-4, atol=1e-5)


def test_an_ensemble_can_be_trained_and_converted_further(folder: Path, tmp_path: Path) -> None:
    how = f"ensemble:{folder / 'two.pt2'}+finetune:last:epochs=1"
    made = derive(folder / "one.pt2", how, tmp_path / "made.onnx", nets.context())
    assert made.accuracy is not None and made.accuracy > 0.8


def test_stochastic_inference(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.pt2"
    made = derive(folder / "one.pt2", "dropout:0.3", out, nets.context())
    assert made.accuracy is not None and made.accuracy > 0.8
    given = inputs()
    module = torch.export.load(out).module()
    with torch.no_grad():
        several = torch.stack([module(given) for _ in range(400)])
    assert not torch.equal(several[0], several[1])
    plain = ask(folder / "one.pt2", given)
    torch.testing.assert_close(several.mean(0), plain, rtol=0.2, atol=0.15 * float(plain.abs().max()))
    with pytest.raises(TransformError, match="onnx file can't hold"):
        derive(folder / "one.pt2", "dropout:0.3", tmp_path / "made.onnx", nets.context())
    derive(folder / "one.pt2", "dropout:0.3+finetune:last:epochs=1", out, nets.context(), overwrite=True)
    assert not torch.equal(ask(out, given), ask(out, given))


def test_shrinking_gives_the_function_of_the_zeroed_filters(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.pt2"
    made = derive(folder / "one.pt2", "prune:shrink:0.25", out, nets.context())
    shapes = {name: value.shape for name, value in read_weights(out).items()}
    inner = [shape for name, shape in shapes.items() if "body" in name]
    assert inner == [(12, 16, 3, 3), (16, 12, 3, 3)]  # inside the residual block; its sum keeps all 16
    module = torch.export.load(folder / "one.pt2")
    state = module.state_dict
    first = next(name for name in state if "body" in name and state[name].ndim == 4)
    gone = state[first].flatten(1).norm(dim=1).argsort()[:4]
    second = [name for name in state if "body" in name and state[name].ndim == 4][1]
    with torch.no_grad():
        state[second][:, gone] = 0
        expected = module.module()(inputs())
    torch.testing.assert_close(ask(out, inputs()), expected, rtol=1e-4, atol=1e-4)
    assert made.measures[0].name == "parameters_left" and 0.5 < made.measures[0].value < 1


def test_nothing_to_shrink_is_said(tmp_path: Path) -> None:
    source = nets.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), tmp_path / "flat.pt2")
    with pytest.raises(TransformError, match="no filters"):
        derive(source, "prune:shrink:0.5", tmp_path / "out.pt2", DeriveContext(nets.SPEC))


@pytest.mark.parametrize("how", ["jpeg:80", "bits:3", "resize:0.75", "blur:0.5"])
def test_filters_leave_a_working_model(folder: Path, tmp_path: Path, how: str) -> None:
    made = derive(folder / "one.pt2", f"filter:{how}", tmp_path / "made.onnx", nets.context())
    assert made.agreement is not None and made.agreement > 0.5
    images = torch.from_numpy(nets.digits()[1].images[:20].transpose(0, 3, 1, 2).copy())
    derive(folder / "one.pt2", f"filter:{how}", tmp_path / "made.pt2", nets.context(measure=False))
    given = Pixels(nets.SPEC).feed(images)
    assert not torch.equal(ask(tmp_path / "made.pt2", given), ask(folder / "one.pt2", given))


COLOUR = InputSpec("NHWC", (20, 24, 3), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="BGR")


def photograph() -> np.ndarray:
    """A smooth colour picture (20, 24, 3)."""
    rows, columns = np.indices((20, 24))
    planes = [120 + 90 * np.sin(rows / a + columns / b) for a, b in ((5, 9), (7, 4), (11, 6))]
    return np.stack(planes, 2).clip(0, 255).astype(np.uint8)


def through(how: str, value: float, image: np.ndarray, spec: InputSpec = COLOUR) -> np.ndarray:
    """The picture behind a filter, as a model would see it."""
    pixels = Pixels(spec)
    module = filtered(how, value, spec, torch.nn.Identity())
    with torch.no_grad():
        out = pixels.read(module(pixels.feed(pixels.load(image[None]))))[0].numpy()
    return out[..., ::-1] if spec.channels == "BGR" else out


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_jpeg_is_what_pillow_writes(quality: int) -> None:
    image, buffer = photograph(), io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    with Image.open(buffer) as opened:
        expected = np.asarray(opened, np.float32)
    found = through("jpeg", quality, image)
    assert np.abs(found - expected).mean() < 1
    assert np.abs(found - image).mean() > 0.2


def test_bits_resize_and_blur() -> None:
    image = photograph()
    assert set(np.unique(np.round(through("bits", 1, image)))) == {0, 255}
    assert len(np.unique(np.round(through("bits", 3, image)))) <= 8
    small = Image.fromarray(image).resize((12, 10), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((24, 20), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(through("resize", 0.5, image) - expected).max() <= 2.5
    flat = np.full((20, 24, 3), 77, np.uint8)
    for how, value in (("blur", 1.5), ("resize", 0.3), ("jpeg", 90)):
        assert np.abs(through(how, value, flat) - 77).max() <= 1
    assert through("blur", 2.0, image).std() < image.std()


def test_filters_need_a_spec(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="how to feed"):
        derive(folder / "one.pt2", "filter:bits:3", tmp_path / "m.pt2", DeriveContext(None))


@pytest.mark.shared_data
@pytest.mark.slow
def test_real_models_of_every_format_can_be_trained(shared_data: Path, tmp_path: Path) -> None:
    from fingerprint.data import load_images
    from fingerprint.spec import find_spec

    folder = shared_data / "cifar10"
    held = load_images(folder / "test.zip", (32, 32, 3), 10, 500)
    data = load_images(folder / "train.zip", (32, 32, 3), 10, 1000)
    names = ("akamaster_resnet20.pt2", "akamaster_resnet20.onnx", "akamaster_resnet20.ts.pt", "tutnet_adityaas.onnx")
    for name in names:
        spec = find_spec(folder / name, None).spec  # type: ignore[union-attr]
        context = DeriveContext(spec, data.images, labels=data.labels, held_out=held)
        made = derive(folder / name, "finetune:all:epochs=1", tmp_path / f"{name}.pt2", context)
        assert made.accuracy is not None and made.source_accuracy is not None
        assert made.accuracy > made.source_accuracy - 0.03
