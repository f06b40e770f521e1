"""The operators in ONNX Runtime, for each instruction set, against the same formulas in float64."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch.nn import functional as F

from gomin_export.lowering.polyphase import from_phases, to_phases
from gomin_export.networks.gan import ResBlock, Snake

Array = NDArray[np.float32]

SETS = {"x86_64": ["avx512", "avx2", "scalar"], "aarch64": ["neon", "scalar"]}.get(platform.machine(), ["scalar"])
# one channel each
ALPHAS = np.array([1e-4, -1e-4, 1e-3, -0.01, 0.1, -0.5, 1.0, -2.0, 10.0, -10.0, 3.0])


def has(instruction_set: str) -> bool:
    if instruction_set not in ("avx512", "avx2"):
        return True
    flags = set(Path("/proc/cpuinfo").read_text().split())
    needed = {"avx512f", "avx512dq", "avx512bw", "avx512vl"} if instruction_set == "avx512" else {"avx2", "fma"}
    return needed <= flags


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    if not has(name):
        pytest.skip(f"this processor has no {name}")
    monkeypatch.setenv("GOMIN_OPS_ISA", name)
    return name


def session(
    library: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, list[str | int | None] | None],
    outputs: Sequence[str],
    threads: int = 1,
) -> onnxruntime.InferenceSession:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("gomin", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Operator:
    """One operator in a session."""

    def __init__(self, library: Path, name: str, inputs: int, threads: int = 1, **attributes: int) -> None:
        self.inputs = [f"input{i}" for i in range(inputs)]
        node = helper.make_node(name, self.inputs, ["y"], domain="gomin", **attributes)
        self.session = session(library, [node], dict.fromkeys(self.inputs), ["y"], threads)

    def __call__(self, *arrays: Array) -> Array:
        result: Array = self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))[0]
        return result


def noise(*shape: int, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)).astype(np.float32)


def taps() -> tuple[Array, Array, ResBlock, Snake]:
    """Filters of an anti-aliased Snake with α in them, and the network's own modules, in float64."""
    block = ResBlock(len(ALPHAS), 3, [1], filter_rate=12000.0).double()
    block.lpf *= torch.rand(len(ALPHAS), 1, 12, generator=torch.Generator().manual_seed(0)).double() + 0.5
    module = Snake(len(ALPHAS)).double()
    module.alpha.data = torch.tensor(ALPHAS)[:, None]
    lpf = block.lpf[:, 0].numpy()
    up, down = lpf * ALPHAS[:, None], lpf / ALPHAS[:, None]
    return up.astype(np.float32), down.astype(np.float32), block, module


def test_anti_aliased_snake_has_exact_edges(library: Path, instruction_set: str) -> None:
    up, down, block, module = taps()
    operator = Operator(library, "AntiAliasedSnake", 3)

    for length in range(1, 201):
        x = noise(2, len(ALPHAS), length, scale=3)
        with torch.no_grad():
            expected = block.anti_aliased(module, torch.from_numpy(x).double()).numpy()
        np.testing.assert_allclose(operator(x, up, down), expected, rtol=0, atol=4e-6, err_msg=f"length {length}")


@pytest.mark.parametrize("shape", [(0, 11, 5), (2, 11, 0), (1, 0, 5), (3, 1, 7)])
def test_anti_aliased_snake_of_few_values(library: Path, instruction_set: str, shape: tuple[int, int, int]) -> None:
    up, down, block, module = taps()
    block.lpf, module.alpha.data = block.lpf[: shape[1]], module.alpha.data[: shape[1]]
    x = noise(*shape)

    actual = Operator(library, "AntiAliasedSnake", 3)(x, up[: shape[1]], down[: shape[1]])

    assert actual.shape == shape
    if x.size:
        with torch.no_grad():
            expected = block.anti_aliased(module, torch.from_numpy(x).double()).numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6)


def test_a_sample_does_not_depend_on_its_place_or_on_threads(library: Path, instruction_set: str) -> None:
    """5000 samples are five blocks; the shift moves all samples in their block and vector."""
    up, down, *_ = taps()
    x = noise(2, len(ALPHAS), 5000, scale=3)
    x[0, 3, 2000] = 1e9  # an argument that the C library reduces; a block without it has no such argument
    operator, two = (Operator(library, "AntiAliasedSnake", 3, threads) for threads in (1, 2))

    whole = operator(x, up, down)

    np.testing.assert_array_equal(operator(x[..., 37:].copy(), up, down)[..., 6:], whole[..., 43:])
    np.testing.assert_array_equal(two(x, up, down), whole)


def test_snake_on_phases_and_filter(library: Path, instruction_set: str) -> None:
    """A filter that changes nothing shows the Snake: the same bits as in one row. Others come after it."""
    up, down, *_ = taps()
    plain = Operator(library, "AntiAliasedSnake", 3)
    operators = [Operator(library, "SnakeFilter", 4, threads) for threads in (1, 2)]
    filtered, after = (
        Operator(library, "SnakeFilter", 4, left=3, right=2),
        Operator(library, "RowFilter", 2, left=3, right=2),
    )
    identity, weight = np.eye(4, dtype=np.float32)[..., None], noise(7, 4, 4)

    for length in [*range(4, 201, 4), 892, 896, 900, 1020, 1024, 1028, 5000]:
        x = noise(2, len(ALPHAS), length, scale=3)
        phased = to_phases(torch.from_numpy(x)).numpy().copy()
        for operator in operators[: 1 + (length == 5000)]:
            actual = operator(phased, up, down, identity)
            y = from_phases(torch.from_numpy(actual)).numpy()
            np.testing.assert_array_equal(y, plain(x, up, down), err_msg=f"length {length}")
        np.testing.assert_array_equal(filtered(phased, up, down, weight), after(actual, weight))


def test_two_filters_with_a_snake_between(library: Path, instruction_set: str) -> None:
    first, second = noise(4, 7, 3), noise(7, 4, 5)
    paddings = {"first_left": 2, "first_right": -1, "left": 4, "right": 4}
    operators = [Operator(library, "RowFilterPair", 3, threads, **paddings) for threads in (1, 2)]
    before, after = (
        Operator(library, "RowFilter", 2, left=2, right=-1),
        Operator(library, "RowFilter", 2, left=4, right=4),
    )
    snake = Operator(library, "Snake", 1)

    for columns in [3, 4, 17, 94, 223, 224, 225, 500, 1000]:
        x = noise(2, 7, 1, 3, columns)
        expected = after(snake(before(x, first)), second)
        for operator in operators:
            np.testing.assert_array_equal(operator(x, first, second), expected, err_msg=f"{columns} columns")


def test_snake_is_as_accurate_as_float32_allows(library: Path, instruction_set: str) -> None:
    generator = np.random.default_rng(0)
    u = (generator.standard_normal(100_003) * 10 ** generator.uniform(-6, 5.9, 100_003)).astype(np.float32)
    exact = u.astype(np.float64)
    exact += np.sin(exact) ** 2

    actual, parallel = (Operator(library, "Snake", 1, threads)(u) for threads in (1, 2))

    # v - |v| cancels where v is negative: units of the larger one
    unit = np.spacing(np.maximum(np.abs(exact), np.abs(u)).astype(np.float32))
    assert np.max(np.abs(actual - exact) / unit) < 2.5
    np.testing.assert_array_equal(parallel, actual)
    special = np.array([np.inf, -np.inf, np.nan, 0, 1e30, -3e38, 1e6, 1.1e6, 1e-40], np.float32)
    with np.errstate(invalid="ignore"):
        expected = special + np.sin(special.astype(np.float64)) ** 2
    np.testing.assert_allclose(Operator(library, "Snake", 1)(special), expected, rtol=1e-6)


def test_snake_with_a_gain_for_each_channel(library: Path, instruction_set: str) -> None:
    operator = Operator(library, "Snake", 2)

    for shape in [(2, 11, 1), (1, 11, 37), (3, 11, 1000), (0, 11, 4), (2, 11, 0)]:
        x, gain = noise(*shape), ALPHAS.astype(np.float32)
        exact = gain[:, None].astype(np.float64) * x
        np.testing.assert_allclose(operator(x, gain), exact + np.sin(exact) ** 2, rtol=0, atol=4e-6)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 2), (3, -1), (-2, 0), (7, 9)])
def test_row_filter(library: Path, instruction_set: str, left: int, right: int) -> None:
    weight = noise(5, 7, 3)
    weight[np.random.default_rng(0).random(weight.shape) < 0.5] = 0
    wide = torch.from_numpy(weight).double()[:, :, None, None]
    attributes = {"left": left, "right": right}
    operator = Operator(library, "RowFilter", 2, **attributes)
    added = [Operator(library, "RowFilter", 3, threads, **attributes) for threads in (1, 2)]

    for columns in [5, 6, 16, 31, 64, 97, 256, 257, 300, 1030]:
        x = noise(2, 7, 1, 3, columns)
        expected = F.conv3d(F.pad(torch.from_numpy(x).double(), (left, right)), wide).numpy()
        np.testing.assert_allclose(operator(x, weight), expected, rtol=0, atol=4e-6, err_msg=f"{columns} columns")
        summand = noise(*expected.shape)
        sums = [each(x, weight, summand) for each in added]
        np.testing.assert_array_equal(sums[0], operator(x, weight) + summand)
        np.testing.assert_array_equal(sums[1], sums[0])


@pytest.mark.parametrize(("phases", "trim"), [(2, 1), (4, 2), (6, 3), (1, 0), (64, 70)])
def test_interleave(library: Path, instruction_set: str, phases: int, trim: int) -> None:
    operators = [Operator(library, "Interleave", 2, threads, phases=phases, trim=trim) for threads in (1, 2)]
    plain = Operator(library, "Interleave", 1, phases=phases, trim=trim)

    for columns in [*range(3, 201), 511, 514, 5000]:
        x = noise(2, phases * 3, columns)
        ordered = x.reshape(2, phases, 3, columns).transpose(0, 2, 3, 1).reshape(2, 3, -1)
        ordered = ordered[..., trim : phases * columns - trim]
        np.testing.assert_array_equal(plain(x), ordered, err_msg=f"{columns} columns")
        modulation = noise(2, 6, ordered.shape[-1])
        scale, shift = modulation.astype(np.float64).reshape(2, 2, 3, -1).transpose(1, 0, 2, 3)
        actual = operators[0](x, modulation)
        np.testing.assert_allclose(actual, (1 + scale) * ordered + shift, rtol=0, atol=4e-6)
        if columns == 5000:
            np.testing.assert_array_equal(operators[1](x, modulation), actual)


@pytest.mark.parametrize("shape", [(0, 4, 3), (1, 0, 3), (2, 4, 1)])
def test_interleave_of_no_samples(library: Path, shape: tuple[int, int, int]) -> None:
    assert Operator(library, "Interleave", 1, phases=2, trim=1)(noise(*shape)).size == 0


def test_lengths_stay_unknown_or_keep_their_name(library: Path) -> None:
    node = helper.make_node("Snake", ["u"], ["y"], domain="gomin")

    (named,) = session(library, [node], {"u": ["batch", 3, "frames"]}, ["y"]).get_outputs()
    (unknown,) = session(library, [node], {"u": ["batch", 3, None]}, ["y"]).get_outputs()

    assert named.shape == ["batch", 3, "frames"]
    assert -1 not in unknown.shape


def test_memory_that_is_still_needed_is_not_overwritten(library: Path) -> None:
    """Snake may write over its input. Here each one is needed again."""
    nodes = [
        helper.make_node("Snake", ["u"], ["a"], domain="gomin"),
        helper.make_node("Snake", ["a"], ["b"], domain="gomin"),
        helper.make_node("Snake", ["b"], ["c"], domain="gomin"),
        helper.make_node("Add", ["a", "b"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    u = noise(40_000)
    a = u + np.sin(u.astype(np.float64)) ** 2
    b = a + np.sin(a) ** 2
    c = b + np.sin(b) ** 2

    (actual,) = session(library, nodes, {"u": None}, ["y"], threads=2).run(None, {"u": u})

    np.testing.assert_allclose(actual, a + b + c, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("Snake", [(2, 3, 4), (4,)], r"gomin Snake: expected u \(B, C, T\) and gain \(C\)"),
        ("AntiAliasedSnake", [(2, 3), (3, 12), (3, 12)], r"gomin AntiAliasedSnake: expected x \(B, C, T\)"),
        ("AntiAliasedSnake", [(1, 3, 9), (3, 12), (3, 11)], r"expected up and down of shape \(C, 12\)"),
        ("RowFilter", [(1, 4, 1, 3, 9), (7, 3, 2)], "the filter is for another number of rows"),
        ("RowFilter", [(4, 3, 9), (7, 4, 2)], r"expected x \(B, R, 1, C, J\)"),
        ("RowFilter", [(1, 4, 1, 3, 9), (7, 4)], r"expected filters \(R', R, K\)"),
        ("SnakeFilter", [(1, 3, 1, 3, 9), (3, 12), (3, 12), (4, 4, 1)], r"expected x \(B, 4, 1, C, J\)"),
        ("SnakeFilter", [(1, 4, 1, 3, 9), (3, 12), (2, 12), (4, 4, 1)], r"expected up and down of shape \(C, 12\)"),
        ("Interleave", [(1, 3)], r"expected x \(B, phases \* C, J\)"),
        ("Interleave", [(1, 3, 9), (1, 5, 9)], r"expected a modulation \(B, 2C, N\) for y \(B, C, N\)"),
        ("RowFilterPair", [(1, 4, 1, 3, 9), (7, 4, 2), (4, 5, 2)], "the filter is for another number of rows"),
        ("RowFilterPair", [(1, 4, 1, 3, 9), (7, 4, 11), (4, 7, 2)], "the filter"),
        ("RowFilter", [(1, 4, 1, 3, 9), (2, 4, 11)], "the filter is longer than x with its padding"),
        ("RowFilter", [(1, 4, 1, 3, 9), (17, 4, 1)], "the filter is too large"),
        ("RowFilter", [(1, 4, 1, 3, 9), (7, 4, 2), (1, 7, 1, 3, 9)], "expected a summand of the shape of y"),
    ],
)
def test_wrong_shapes_are_refused(library: Path, name: str, shapes: list[tuple[int, ...]], message: str) -> None:
    operator = Operator(library, name, len(shapes))

    with pytest.raises(Exception, match=message):
        operator(*(noise(*shape) for shape in shapes))


@pytest.mark.parametrize("paddings", [{"left": 2**40, "right": -(2**40)}, {"first_left": -(2**63), "right": 2**62}])
def test_padding_beyond_every_signal_is_refused(library: Path, paddings: dict[str, int]) -> None:
    with pytest.raises(Exception, match="gomin: a filter has more than 1048576 columns of padding"):
        Operator(library, "RowFilterPair", 3, **paddings)


@pytest.mark.parametrize("attributes", [{"phases": 0}, {"phases": 65}, {"trim": -1}, {"trim": 2**40}])
def test_phases_beyond_every_signal_are_refused(library: Path, attributes: dict[str, int]) -> None:
    with pytest.raises(Exception, match="gomin Interleave: phases must be 1 to 64, trim 0 to 1048576"):
        Operator(library, "Interleave", 1, **attributes)


def test_samples_that_are_not_there_cannot_be_trimmed(library: Path) -> None:
    with pytest.raises(Exception, match="gomin Interleave: x has fewer samples than are trimmed"):
        Operator(library, "Interleave", 1, phases=3, trim=5)(noise(1, 3, 3))


def test_phases_must_divide_the_rows(library: Path) -> None:
    with pytest.raises(Exception, match="gomin Interleave: expected x"):
        Operator(library, "Interleave", 1, phases=3)(noise(1, 4, 3))


def test_an_optional_input_without_a_name_is_refused(library: Path) -> None:
    node = helper.make_node("RowFilter", ["x", "weight", ""], ["y"], domain="gomin")
    filtering = session(library, [node], {"x": None, "weight": None}, ["y"])

    with pytest.raises(Exception, match="gomin RowFilter: an input has no name"):
        filtering.run(None, {"x": noise(1, 4, 1, 3, 9), "weight": noise(7, 4, 2)})


def test_an_unknown_instruction_set_is_refused(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMIN_OPS_ISA", "mmx")

    with pytest.raises(Exception, match="GOMIN_OPS_ISA names an instruction set that this processor or library does"):
        Operator(library, "Snake", 1)
