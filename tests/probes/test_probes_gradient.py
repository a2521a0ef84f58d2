"""Gradient-made probes: the parts by their definitions, the loop on a linear model whose boundary is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fingerprint.engine.adapt import Adapter
from fingerprint.errors import CreateError, DegenerateModel
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.probes.gradient import (
    CHUNK_PROBES,
    NOISE_HALVINGS,
    PATIENCE,
    DifferentiableOwner,
    HighPass,
    Recipe,
    RoundStraightThrough,
    WeightNoise,
    dct_matrix,
    logit_spread,
    optimise,
    target_margin,
    to_images,
    tolerated_noise,
)

H, W, K = 4, 5, 3
SPECS = {
    "NCHW": InputSpec("NCHW", (3, H, W), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),
    "NHWC": InputSpec("NHWC", (H, W, 3), range=(-1.0, 1.0), mean=(0.0,) * 3, std=(1.0,) * 3),
    "BGR": InputSpec(
        "NCHW", (3, H, W), range=(0.0, 255.0), mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0), channels="BGR"
    ),
    "grey": InputSpec("NHWC", (H, W, 1), mean=(0.1,), std=(0.5,), channels="L"),
}  # fmt: skip


class Linear(nn.Module):
    """logits = A x + b of the flattened *model input*; counts the examples it is given."""

    def __init__(self, spec: InputSpec, classes: int = K, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = math.prod(spec.shape)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator) / size, requires_grad=False)
        self.bias = nn.Parameter(0.1 * torch.randn(classes, generator=generator), requires_grad=False)
        self.examples = 0
        self.inputs: list[torch.Tensor] = []

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self.examples += len(value)
        self.inputs.append(value.detach().clone())
        return value.flatten(1) @ self.weight.T + self.bias


def linear_logits(module: Linear, images: Images, spec: InputSpec) -> Floats:
    """The same by the engine's own adaptation, in float64."""
    adapted = Adapter(spec, Signature((), spec.dtype))(images)
    flat = adapted.reshape(len(images), -1).astype(np.float64)
    return flat @ module.weight.double().numpy().T + module.bias.double().numpy()  # type: ignore[no-any-return]


def margins(logits: Floats, targets: list[int]) -> Floats:
    own = logits[np.arange(len(targets)), targets]
    others = np.where(np.eye(logits.shape[1], dtype=bool)[targets], -np.inf, logits).max(axis=1)
    return own - others  # type: ignore[no-any-return]


def seeds(spec: InputSpec, count: int, seed: int = 0) -> torch.Tensor:
    height, width, depth = spec.image_shape
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, depth, height, width, generator=generator) * 255).round()


# -- the parts -------------------------------------------------------------------------------------------------------


def test_rounding_forward_and_identity_backward() -> None:
    value = torch.tensor([0.2, 0.5, 1.5, 254.6, -0.4], requires_grad=True)
    rounded = RoundStraightThrough.apply(value)
    assert rounded.tolist() == [0.0, 0.0, 2.0, 255.0, 0.0]
    weights = torch.arange(5.0)
    (rounded * weights).sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == weights.tolist()


@given(st.integers(2, 7), st.integers(1, 6), st.integers(0, 10_000))
def test_margin_is_the_gap_to_the_best_other(classes: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    for row, target, margin in zip(
        logits.tolist(), targets.tolist(), target_margin(logits, targets).tolist(), strict=True
    ):
        assert margin == pytest.approx(row[target] - max(v for i, v in enumerate(row) if i != target), abs=1e-6)
        assert (margin > 0) == (row.index(max(row)) == target)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 17])
def test_dct_matrix(size: int) -> None:
    matrix = dct_matrix(size).double().numpy()
    assert matrix @ matrix.T == pytest.approx(np.eye(size), abs=1e-6)
    expected = [
        [
            math.sqrt((1 if k == 0 else 2) / size) * math.cos(math.pi * (2 * n + 1) * k / (2 * size))
            for n in range(size)
        ]
        for k in range(size)
    ]  # fmt: skip
    assert matrix == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(("height", "width", "cut"), [(8, 8, 0.25), (16, 8, 0.5), (5, 9, 0.4), (32, 32, 0.125)])
def test_high_pass_is_a_projection_without_low_frequencies(height: int, width: int, cut: float) -> None:
    high_pass = HighPass(height, width, cut)
    x, y = torch.randn(2, 3, 2, height, width, generator=torch.Generator().manual_seed(1)).unbind(0)
    once = high_pass(x)
    assert torch.allclose(high_pass(once), once, atol=1e-5)
    assert (high_pass(x) * y).sum() == pytest.approx(float((x * high_pass(y)).sum()), abs=1e-3)  # self-adjoint
    assert high_pass(torch.full((1, 1, height, width), 7.0)).abs().max() < 1e-4
    rows, columns = dct_matrix(height), dct_matrix(width)
    for i, j, kept in ((0, 0, 0.0), (height - 1, width - 1, 1.0), (height - 1, 0, 1.0), (0, width - 1, 1.0)):
        wave = torch.outer(rows[i], columns[j])[None, None]
        assert high_pass(wave).norm() == pytest.approx(kept, abs=1e-5)
    spectrum = rows @ once @ columns.T
    assert spectrum[..., : round(cut * height), : round(cut * width)].abs().max() < 1e-4
    assert 0 < once.norm() < x.norm()


def test_images_keep_their_channels_and_levels() -> None:
    value = seeds(SPECS["NCHW"], 3)
    images = to_images(value)
    assert images.shape == (3, H, W, 3)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous
    assert (images == value.permute(0, 2, 3, 1).numpy()).all()


# -- noise on the weights --------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Weights, vectors, a floating buffer of two dimensions, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("table", torch.randn(3, 5))
        self.register_buffer("index", torch.arange(6).reshape(2, 3))
        self.register_buffer("zeros", torch.zeros(2, 2))
        self.requires_grad_(False)


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def test_weight_noise_is_bounded_uniform_and_undone() -> None:
    module = Mixed()
    before, clean = bits(module), {n: v.clone() for n, v in module.state_dict().items()}
    noise = WeightNoise(module, 0.4, torch.Generator().manual_seed(0))
    with noise.held():
        drawn = []
        for _ in range(50):
            noise.draw()
            drawn.append({n: v.clone() for n, v in module.state_dict().items()})
    assert bits(module) == before
    for name, value in clean.items():
        changes = torch.stack([d[name].double() - value.double() for d in drawn])
        if value.is_floating_point() and value.ndim >= 2 and name != "zeros":
            amplitude = 0.4 * float(value.double().square().mean().sqrt())
            assert changes.abs().max() <= amplitude * (1 + 1e-5)
            assert changes.abs().max() > 0.9 * amplitude
            assert abs(changes.mean()) < 0.1 * amplitude
            assert changes.std() == pytest.approx(amplitude / math.sqrt(3), rel=0.1)
            assert not torch.equal(drawn[0][name], drawn[1][name])
        else:
            assert changes.abs().max() == 0


def test_weights_come_back_even_after_an_error() -> None:
    module = Mixed()
    before = bits(module)
    noise = WeightNoise(module, 0.4, torch.Generator().manual_seed(0))
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), noise.held():
            noise.draw()
            assert bits(module) != before
            raise error
        assert bits(module) == before


def test_noise_comes_from_its_generator_alone() -> None:
    found = []
    for seed in (1, 1, 2):
        module = Mixed()
        noise = WeightNoise(module, 0.4, torch.Generator().manual_seed(seed))
        torch.manual_seed(seed + len(found))
        with noise.held():
            noise.draw()
            found.append(bits(module))
    assert found[0] == found[1] != found[2]


# -- the owner as a function of 8-bit images -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_input_is_what_the_engine_feeds(name: str) -> None:
    """Layout, channel order, range, mean and std: the differentiable owner and `verify` must see the same."""
    spec = SPECS[name]
    module = Linear(spec)
    value = seeds(spec, 6)
    logits = DifferentiableOwner(module, spec, K).logits(value)
    expected = Adapter(spec, Signature((None, *spec.shape), "float32"))(to_images(value))
    assert module.inputs[0].numpy() == pytest.approx(expected, abs=1e-5)
    assert logits.numpy() == pytest.approx(linear_logits(module, to_images(value), spec), abs=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_gradient_in_closed_form(name: str) -> None:
    """Of relu(kappa - margin): the row of the best other minus that of the target, scaled; zero beyond kappa."""
    spec = SPECS[name]
    module = Linear(spec)
    owner = DifferentiableOwner(module, spec, K)
    value, targets = seeds(spec, 12), torch.arange(12) % K
    values = margins(linear_logits(module, to_images(value), spec), targets.tolist())
    kappa = float(np.median(values)) + 1e-3
    margin, gradient = owner.margin_and_gradient(value + 0.3, targets, kappa)  # rounds back to `value`
    assert margin.numpy() == pytest.approx(values, abs=1e-5)
    logits = linear_logits(module, to_images(value), spec)
    for i, target in enumerate(targets.tolist()):
        if values[i] >= kappa:
            assert gradient[i].abs().max() == 0
            continue
        other = int(np.where(np.arange(K) == target, -np.inf, logits[i]).argmax())
        row = (module.weight[other] - module.weight[target]).reshape(spec.shape)
        row = row if spec.layout == "NCHW" else row.permute(2, 0, 1)
        low, high = spec.range
        scale = torch.tensor([(high - low) / 255 / s for s in spec.std])[:, None, None]
        expected = row * scale
        expected = expected.flip(0) if spec.channels == "BGR" else expected  # back in RGB
        assert torch.allclose(gradient[i], expected, atol=1e-7)


class Head(nn.Module):
    """Changes what `Linear` answers."""

    def __init__(self, spec: InputSpec, kind: str, classes: int = K) -> None:
        super().__init__()
        self.body, self.kind = Linear(spec, classes), kind

    def forward(self, value: torch.Tensor) -> object:
        logits = self.body(value)
        return {
            "softmax": lambda: logits.softmax(1),
            "tuple": lambda: (logits, value),
            "list": lambda: [logits],
            "dict": lambda: {"scores": logits, "rest": value},
            "column": lambda: logits[:, :, None, None],
        }[self.kind]()


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "column"])
def test_what_holds_the_logits(kind: str) -> None:
    spec = SPECS["NCHW"]
    module = Head(spec, kind)
    value = seeds(spec, 5)
    found = DifferentiableOwner(module, spec, K).logits(value)
    assert torch.equal(found, DifferentiableOwner(module.body, spec, K).logits(value))


def test_probabilities_give_the_margins_of_their_logits() -> None:
    spec, targets = SPECS["NCHW"], torch.arange(9) % K
    module = Head(spec, "softmax")
    value = seeds(spec, 9)
    plain, plain_gradient = DifferentiableOwner(module.body, spec, K).margin_and_gradient(value, targets, 9.0)
    margin, gradient = DifferentiableOwner(module, spec, K).margin_and_gradient(value, targets, 9.0)
    assert torch.allclose(margin, plain, atol=1e-5)
    assert torch.allclose(gradient, plain_gradient, atol=1e-7)


def test_logits_that_are_positive_by_chance_are_no_probabilities() -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    module.bias.add_(50.0)
    value = seeds(spec, 4)
    expected = linear_logits(module, to_images(value), spec)
    assert DifferentiableOwner(module, spec, K).logits(value).numpy() == pytest.approx(expected, rel=1e-5)


def test_class_offset_and_surplus_classes_are_cut() -> None:
    spec = InputSpec("NCHW", (3, H, W), mean=(0.0,) * 3, std=(1.0,) * 3, class_offset=1)
    module = Linear(spec, classes=6)
    found = DifferentiableOwner(module, spec, 4).logits(seeds(spec, 3))
    assert found.numpy() == pytest.approx(linear_logits(module, to_images(seeds(spec, 3)), spec)[:, 1:5], abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonsense_is_refused(value: float) -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    module.bias[1] = value
    with pytest.raises(DegenerateModel):
        DifferentiableOwner(module, spec, K).logits(seeds(spec, 2))


def test_batches_that_the_module_takes() -> None:
    """A fixed batch of 4: smaller ones are padded, larger ones never come up, padding is not counted."""
    spec = SPECS["NCHW"]
    module = Linear(spec)
    owner = DifferentiableOwner(module, spec, K, (4, 4))
    assert owner.chunk == 4
    value = seeds(spec, 3)
    found = owner.logits(value)
    assert len(module.inputs[0]) == 4
    torch.testing.assert_close(found, DifferentiableOwner(Linear(spec), spec, K).logits(value))
    assert owner.passes == 3


def test_chunks_fit_memory() -> None:
    assert DifferentiableOwner(nn.Identity(), SPECS["NCHW"], K).chunk == CHUNK_PROBES
    large = InputSpec("NCHW", (3, 224, 224), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert 10 <= DifferentiableOwner(nn.Identity(), large, K).chunk <= 64
    huge = InputSpec("NCHW", (3, 5000, 5000), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert DifferentiableOwner(nn.Identity(), huge, K).chunk == 1


def test_spread_is_that_of_centred_logits() -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    owner = DifferentiableOwner(module, spec, K)
    logits = linear_logits(module, to_images(seeds(spec, 20)), spec)
    centred = logits - logits.mean(axis=1, keepdims=True)
    assert logit_spread(owner, seeds(spec, 20)) == pytest.approx(centred.std(ddof=1), rel=1e-4)
    shifted = Linear(spec)
    shifted.bias.add_(100.0)  # one constant on all classes changes no answer
    assert logit_spread(DifferentiableOwner(shifted, spec, K), seeds(spec, 20)) == pytest.approx(
        centred.std(ddof=1), rel=1e-3
    )


def test_a_constant_model_has_no_spread() -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    module.weight.zero_()
    module.bias.zero_()
    with pytest.raises(CreateError, match="do not depend"):
        logit_spread(DifferentiableOwner(module, spec, K), seeds(spec, 4))


# -- the loop --------------------------------------------------------------------------------------------------------


def run(
    module: nn.Module, spec: InputSpec, recipe: Recipe, margin: float, count: int = 30
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, DifferentiableOwner]:
    owner = DifferentiableOwner(module, spec, K)
    targets = torch.arange(count) % K
    images, reached = optimise(owner, seeds(spec, count), targets, recipe, margin, torch.Generator().manual_seed(0))
    return images, reached, targets, owner


@settings(max_examples=12)
@given(st.sampled_from(sorted(SPECS)), st.floats(0.005, 0.05), st.integers(0, 5), st.sampled_from([0.0, 0.25]))
def test_reached_probes_hold_the_margin_at_their_8_bit_values(name: str, kappa: float, seed: int, cut: float) -> None:
    spec = SPECS[name]
    module = Linear(spec, seed=seed)
    images, reached, targets, _ = run(module, spec, Recipe(kappa=1.0, cut=cut), kappa)
    assert images.min() >= 0
    assert images.max() <= 255
    assert torch.equal(images, images.round())
    values = margins(linear_logits(module, to_images(images), spec), targets.tolist())
    assert (values[reached.numpy()] >= kappa - 1e-5).all()
    assert reached.any()
    best = _best_margins(module, spec, targets.tolist())
    assert (values <= best + 1e-5).all()
    assert not reached.numpy()[best < kappa - 1e-5].any()


def _best_margins(module: Linear, spec: InputSpec, targets: list[int]) -> Floats:
    """An upper bound of what any image in the box reaches: against each other class by itself, at the best corner."""
    low, high = spec.range
    mean, std = np.array(spec.mean), np.array(spec.std)
    ends = [(np.array(v) - mean) / std for v in (low, high)]  # per channel, in the file's order
    shape = (-1, 1, 1) if spec.layout == "NCHW" else (1, 1, -1)
    corners = np.stack([np.broadcast_to(e.reshape(shape), spec.shape).ravel() for e in ends])
    weight, bias = module.weight.double().numpy(), module.bias.double().numpy()
    found = []
    for t in targets:
        gaps = [
            (np.maximum(*((weight[t] - weight[j]) * corners)).sum() + bias[t] - bias[j]) for j in range(K) if j != t
        ]
        found.append(min(gaps))
    return np.array(found)


def test_probes_stop_at_the_margin() -> None:
    """What is not needed would only add transfer: a probe stops within one step of the margin."""
    spec = SPECS["NCHW"]
    module = Linear(spec)
    kappa = 0.03
    images, reached, targets, _ = run(module, spec, Recipe(kappa=1.0), kappa, 60)
    assert reached.all()
    logits = linear_logits(module, to_images(images), spec)
    before = margins(linear_logits(module, to_images(seeds(spec, 60)), spec), targets.tolist())
    already = before >= kappa
    assert torch.equal(images[torch.from_numpy(already)], seeds(spec, 60)[torch.from_numpy(already)])
    scale = np.repeat([1 / 255 / s for s in spec.std], H * W)
    longest = max(
        4.5 * float((np.abs(module.weight[a] - module.weight[b]).numpy() * scale).sum())
        for a in range(K)
        for b in range(K)
    )
    after = margins(logits, targets.tolist())[~already]
    assert (after < kappa + longest).all()


def test_an_unreachable_margin_is_not_reached() -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    images, reached, targets, owner = run(module, spec, Recipe(kappa=1.0, steps=100), 50.0, 9)
    assert not reached.any()
    assert owner.passes == 9 * 2 * 100
    values = margins(linear_logits(module, to_images(images), spec), targets.tolist())
    assert (values > 0).all()  # it went as far as it could


def test_high_pass_leaves_low_frequencies_of_the_seed_alone() -> None:
    """Steps are signs, so only their direction is filtered; a model of the mean brightness gives no direction."""
    spec = InputSpec("NCHW", (1, 8, 8), channels="L")
    module = Linear(spec)
    module.weight.copy_(torch.tensor([1.0, -1.0, 0.0])[:, None].expand(3, 64) / 64)
    found, reached, _, _ = run(module, spec, Recipe(kappa=1.0, cut=0.25, steps=5), 5.0, 6)
    assert not reached.any()
    drift = (found - seeds(spec, 6)).mean(dim=(1, 2, 3))
    plain, _, _, _ = run(module, spec, Recipe(kappa=1.0, steps=5), 5.0, 6)
    assert drift.abs().max() < 0.5 * (plain - seeds(spec, 6)).mean(dim=(1, 2, 3)).abs().max()


@pytest.mark.parametrize("recipe", [Recipe(1.0), Recipe(1.0, delta=0.3, draws=3), Recipe(1.0, steps=7)])
def test_passes_are_counted_exactly(recipe: Recipe) -> None:
    """Every example through the module once forward, and once backward."""
    spec = SPECS["NCHW"]
    module = Linear(spec)
    *_, owner = run(module, spec, recipe, 0.02)
    assert owner.passes == 2 * module.examples
    assert module.examples > 30
    before = module.examples
    logit_spread(owner, seeds(spec, 10))
    assert module.examples == before + 10
    assert owner.passes == 2 * before + 10


def test_finished_probes_cost_nothing() -> None:
    spec = SPECS["NCHW"]
    easy = Linear(spec)
    *_, owner = run(easy, spec, Recipe(1.0), -100.0, 40)
    assert owner.passes == 80  # one look at each


def test_noise_leaves_the_module_as_it_was_and_demands_the_margin_of_every_draw() -> None:
    spec = SPECS["NCHW"]
    module = Linear(spec)
    before = bits(module)
    recipe = Recipe(1.0, delta=0.3, draws=2)
    images, reached, targets, _ = run(module, spec, recipe, 0.02)
    assert bits(module) == before
    assert reached.any()
    noisy = margins(linear_logits(module, to_images(images), spec), targets.tolist())[reached.numpy()]
    plain_images, plain, targets, _ = run(module, spec, Recipe(1.0), 0.02)
    plainly = margins(linear_logits(module, to_images(plain_images), spec), targets.tolist())[plain.numpy()]
    assert noisy.mean() > plainly.mean()  # room for the noise


def test_a_failing_model_is_left_clean() -> None:
    spec = SPECS["NCHW"]

    class Failing(Linear):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            if self.examples > 60:
                raise RuntimeError("broken")
            return super().forward(value)

    module = Failing(spec)
    before = bits(module)
    with pytest.raises(RuntimeError, match="broken"):
        run(module, spec, Recipe(1.0, delta=0.3, draws=2), 5.0)
    assert bits(module) == before


class Constant(nn.Module):
    """Answers class 0 with the same margin whatever it is given."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return 0.0 * value.flatten(1)[:, :K] + torch.tensor([1.0, 0.0, -1.0])


def test_a_probe_that_does_not_get_better_is_left() -> None:
    _, reached, _, owner = run(Constant(), SPECS["NCHW"], Recipe(kappa=1.0, steps=60), 5.0, 12)
    assert not reached.any()
    assert owner.passes == 12 * 2 * (PATIENCE + 1)  # the first look, and as many without a better margin


class Weighed(nn.Module):
    """Two classes that differ by little on weights that are `common`: the larger those, the more noise drowns it."""

    def __init__(self, common: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), common), requires_grad=False)
        self.weight[0] += 1.0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value.mean(dim=(2, 3)) @ self.weight.T


@pytest.mark.parametrize("common", [0.0, 8.0, 1e6])
def test_noise_that_breaks_the_owner_is_halved(common: float) -> None:
    """A class ahead by one on weights of size `common`, under noise relative to those weights."""
    spec = InputSpec("NCHW", (3, H, W))
    module = Weighed(common)
    before = bits(module)
    owner = DifferentiableOwner(module, spec, 2)
    images = torch.full((20, 3, H, W), 200.0)
    found = tolerated_noise(owner, images, torch.zeros(20, dtype=torch.int64), 0.8, torch.Generator().manual_seed(0))
    assert bits(module) == before
    if common == 0.0:
        assert found == 0.8
    elif common == 8.0:
        assert 0.8 / 2**NOISE_HALVINGS < found < 0.8
    else:
        assert found == 0.8 / 2**NOISE_HALVINGS
    assert owner.passes % 20 == 0
