"""Branches that meet: residual connections, concatenations, and what no chain can do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_bench import Drawn, compared, kinds, refusal

from xnorflow.frontend import read
from xnorflow.import_check import check_import
from xnorflow.lowering import lower
from xnorflow.network import Join, Network

FRAME = (2, 6, 8)


class Blocks(Drawn):
    """Convolutions of images; each method returns a tensor."""

    def __init__(self, seed: int = 1, channels: int = 4) -> None:
        super().__init__(seed, ("N", *FRAME))
        self.channels = channels

    def conv(self, x: str, channels: int = 4, outputs: int = 4, **options) -> str:
        """Add a convolution and a batch norm."""
        weights = self.signs(outputs, channels, 3, 3)
        x = self.node("Conv", x, weights, **{"pads": [1] * 4, **options})
        rng = self.rng
        norm = [rng.choice([-0.5, 0.25, 0.5], outputs), rng.integers(-2, 3, outputs) / 4]
        norm += [rng.integers(-3, 4, outputs) / 2, np.ones(outputs)]
        return self.node("BatchNormalization", x, *map(self.constant, norm), epsilon=0.0)

    def stem(self) -> str:
        return self.conv(self.bipolar("x"), 2)

    def end(self, x: str, channels: int = 4) -> None:
        """Add a quantizer and a classifier by means."""
        x = self.node("Conv", self.bipolar(x), self.signs(3, channels, 1, 1))
        self.node("Flatten", self.node("GlobalAveragePool", x))


def joined(network: Network) -> list[Join]:
    return [op for op in network.ops if isinstance(op, Join)]


def compared_to_golden(g: Blocks, folder: Path) -> None:
    """Compare the graph, the network and the golden model, on frames around the thresholds."""
    imported = read(g.save(folder))
    check = check_import(imported, lower(imported.network), frames=20)
    assert check.frames == 20
    assert check.inconclusive <= 2


def test_shortcut_around_a_layer(tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x))
    g.end(g.node("Add", x, y, name="add"))
    network = compared(g, tmp_path, FRAME)
    (join,) = joined(network)
    assert (join.name, join.how, join.path) == ("add", "add", ())
    assert kinds(network)[: join.source] == ["Sign", "Conv2d", "BatchNorm"]
    assert kinds(network)[join.source :][:4] == ["Sign", "Conv2d", "BatchNorm", "Join"]


def test_chained_shortcuts(tmp_path):
    """Bi-Real Net: the sums of each block are the next block's shortcut."""
    g = Blocks()
    x = g.stem()
    for _ in range(3):
        x = g.node("Add", g.conv(g.bipolar(x)), x)
    g.end(x)
    network = compared(g, tmp_path, FRAME)
    assert [join.source for join in joined(network)] == [3, 7, 11]


def test_shortcuts_around_shortcuts(tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x))
    z = g.node("Add", g.conv(g.bipolar(y)), y)
    g.end(g.node("Add", x, g.conv(g.bipolar(z))))
    assert [join.source for join in joined(compared(g, tmp_path, FRAME))] == [6, 3]


def test_shortcut_from_bits(tmp_path):
    g = Blocks()
    x = g.bipolar(g.stem(), 0.5)
    g.end(g.node("Sub", g.conv(x), x))
    (join,) = joined(compared(g, tmp_path, FRAME))
    assert [type(op).__name__ for op in join.path] == ["Affine"]


def test_shortcut_of_levels_before_a_layer(tmp_path):
    g = Blocks()
    x = g.quant(g.node("Relu", g.stem()), 0.5, 0, 2, signed=0)
    y = g.quant(g.conv(x), 0.5, 0, 2, signed=0)
    y = g.node("Conv", g.node("Add", x, y), g.signs(3, 4, 3, 3), pads=[1] * 4)
    g.node("Flatten", g.node("GlobalAveragePool", y))
    assert len(joined(compared(g, tmp_path, FRAME))) == 1


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_shortcut_that_makes_an_image_smaller_and_deeper(pool, tmp_path):
    """As the branch with the Concat cannot be the shortcut, the branch with the layer is."""
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x), 4, 8, strides=[2, 2])
    side = g.node(pool, x, kernel_shape=[2, 2], strides=[2, 2])
    side = g.node("Concat", side, side, axis=1)
    g.end(g.node("Add", y, side, name="add"), 8)
    deeper, add = joined(compared(g, tmp_path, FRAME))
    assert (deeper.how, deeper.path) == ("append", ())
    assert [type(op).__name__ for op in add.path] == ["Sign", "Conv2d", "BatchNorm"]


def test_shortcut_with_a_layer(tmp_path):
    """ResNet: where the image gets smaller and deeper, a convolution is on the shortcut."""
    g = Blocks()
    x = g.bipolar(g.stem())
    y = g.conv(g.bipolar(g.conv(x, 4, 6, strides=[2, 2])), 6, 6)
    side = g.node("Conv", x, g.signs(6, 4, 1, 1), strides=[2, 2], name="down")
    g.end(g.node("Add", y, side, name="add"), 6)
    network = compared(g, tmp_path, FRAME)
    (join,) = joined(network)
    assert [(op.name, op.stride) for op in join.path] == [("down", (2, 2))]
    assert [layer.name for layer in network.layers()][3] == "down"
    compared_to_golden(g, tmp_path)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_shortcut_with_a_pool_and_a_layer(pool, tmp_path):
    """Bi-Real Net: a pool makes the image smaller, and a convolution deeper."""
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x), 4, 6, strides=[2, 2])
    side = g.bipolar(g.node(pool, x, kernel_shape=[2, 2], strides=[2, 2]))
    x = g.node("Add", y, g.conv(side, 4, 6, pads=[1] * 4))
    g.end(g.node("Add", x, g.conv(g.bipolar(x), 6, 6)), 6)
    first, second = joined(compared(g, tmp_path, FRAME))
    assert [type(op).__name__ for op in first.path] == [pool, "Sign", "Conv2d", "BatchNorm"]
    assert second.path == ()
    compared_to_golden(g, tmp_path)


@pytest.mark.parametrize("first", [True, False])
def test_concatenation_of_two_branches_with_layers(first, tmp_path):
    g = Blocks()
    x = g.bipolar(g.stem())
    y = g.bipolar(g.conv(g.bipolar(g.conv(x)), 4, 3))
    z = g.bipolar(g.conv(x, 4, 2))
    g.end(g.node("Concat", *((z, y) if first else (y, z)), axis=1), 5)
    (join,) = joined(compared(g, tmp_path, FRAME))
    assert join.how == ("prepend" if first else "append")
    assert [type(op).__name__ for op in join.path] == ["Conv2d", "BatchNorm", "Sign"]
    compared_to_golden(g, tmp_path)


def test_three_branches_with_layers(tmp_path):
    g = Blocks()
    x = g.bipolar(g.stem())
    branches = [g.conv(g.bipolar(g.conv(x))), g.conv(x), g.conv(x, dilations=[2, 2], pads=[2] * 4)]
    g.end(g.node("Sum", *branches))
    first, second = joined(compared(g, tmp_path, FRAME))
    assert first.source == second.source
    assert [op.dilation[0] for join in (first, second) for op in join.path[:1]] == [1, 2]


def test_layers_without_names_on_a_shortcut(tmp_path):
    g = Blocks()
    x = g.bipolar(g.stem())
    side = g.node("Conv", x, g.signs(4, 4, 1, 1), name="")
    y = g.node("Conv", g.bipolar(g.conv(x)), g.signs(4, 4, 1, 1), name="")
    g.end(g.node("Add", y, side, name="add"))
    network = compared(g, tmp_path, FRAME)
    names = [layer.name for layer in network.layers()]
    assert len(set(names)) == len(names) == 5
    assert [op.name for op in joined(network)[0].path] == [names[3]]


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_block_behind_a_smaller_and_deeper_image(pool, tmp_path):
    g = Blocks()
    x = g.node(pool, g.stem(), kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("Concat", x, x, axis=1)
    g.end(g.node("Add", g.conv(g.bipolar(x), 8, 8), x), 8)
    assert [join.how for join in joined(compared(g, tmp_path, FRAME))] == ["append", "add"]


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_shortcut_with_a_pool(pool, tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x), strides=[2, 2])
    side = g.node(pool, x, kernel_shape=[2, 2], strides=[2, 2])
    g.end(g.node("Add", y, g.node("Mul", side, g.constant(-0.5))))
    (join,) = joined(compared(g, tmp_path, FRAME))
    assert [type(op).__name__ for op in join.path] == [pool, "Affine"]


@pytest.mark.parametrize("first", [True, False])
def test_concatenation_with_what_a_layer_took(first, tmp_path):
    g = Blocks()
    x = g.bipolar(g.stem())
    y = g.bipolar(g.conv(x, 4, 3))
    g.end(g.node("Concat", *((x, y) if first else (y, x)), axis=-3), 7)
    (join,) = joined(compared(g, tmp_path, FRAME))
    assert join.how == ("prepend" if first else "append")


def test_dense_connections(tmp_path):
    """DenseNet: each layer takes what all layers before it gave."""
    g = Blocks()
    features = [g.stem()]
    for index in range(3):
        x = features[0] if index == 0 else g.node("Concat", *features, axis=1)
        features.append(g.conv(g.bipolar(x), 4 + 2 * index, 2))
    g.end(g.node("Concat", *features, axis=1), 10)
    # Each takes up what the one before gave.
    assert len(joined(compared(g, tmp_path, FRAME))) == 3


def test_dense_connections_as_a_chain_of_pairs(tmp_path):
    g = Blocks()
    x = g.stem()
    for index in range(3):
        x = g.node("Concat", x, g.conv(g.bipolar(x), 4 + 2 * index, 2), axis=1)
    g.end(x, 10)
    assert len(joined(compared(g, tmp_path, FRAME))) == 3


def test_channels_twice(tmp_path):
    g = Blocks()
    x = g.node("Concat", *[g.stem()] * 3, axis=1)
    g.end(x, 12)
    assert [join.source for join in joined(compared(g, tmp_path, FRAME))] == [3, 3]


def test_vectors(tmp_path):
    g = Drawn()
    x = g.first()
    y = g.node("Gemm", g.bipolar(x), g.signs(9, 9))
    y = g.node("Concat", g.node("Add", x, y), x, axis=1)
    g.last(g.bipolar(y), 18)
    assert [join.how for join in joined(compared(g, tmp_path))] == ["add", "append"]


def test_flattened_images(tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.bipolar(g.conv(g.bipolar(x), 4, 2))
    flat = [g.node("Flatten", t) for t in (g.bipolar(x), y)]
    g.node("Gemm", g.node("Concat", *flat, axis=1), g.signs(288, 3))
    compared(g, tmp_path, FRAME)


def test_straight_through_estimators_beside_a_shortcut(tmp_path):
    """As torch exports Bi-Real Net with the detach trick."""
    g = Blocks()
    x = g.stem()
    for _ in range(2):
        clipped = g.node("Clip", x, g.constant(-1), g.constant(1))
        condition = g.node("GreaterOrEqual", x, g.constant(0))
        sign = g.node("Where", condition, g.constant(1), g.constant(-1))
        bits = g.node("Add", clipped, g.node("Sub", sign, clipped))
        x = g.node("Add", g.conv(bits), x)
    g.end(x)
    assert len(joined(compared(g, tmp_path, FRAME))) == 2


def test_sum_of_three(tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(x))
    z = g.conv(g.bipolar(y))
    g.end(g.node("Add", x, g.node("Sub", z, y)))
    assert len(joined(compared(g, tmp_path, FRAME))) == 2


@pytest.mark.parametrize("form", ["bits", "bits and multiples", "layer that cancels"])
def test_sums_of_one_tensor_and_its_bits(form, tmp_path):
    g = Drawn()
    x = g.first()
    y = g.bipolar(x)
    if form == "bits and multiples":
        y, x = g.node("Sub", y, x), g.node("Mul", x, g.constant(3))
    elif form == "layer that cancels":
        z = g.node("Gemm", y, g.signs(9, 9))
        y, x = g.node("Sub", y, z), z
    g.last(g.bipolar(g.node("Add", x, g.node("Mul", y, g.constant(0.5)) if form == "bits" else y)))
    assert len(joined(compared(g, tmp_path))) == 1


def test_bases_beside_a_shortcut(tmp_path):
    g = Blocks()
    x = g.stem()
    bits = g.bipolar(x)
    terms = [
        g.node("Mul", g.node("Conv", bits, g.signs(4, 4, 3, 3), pads=[1] * 4), g.constant(alpha))
        for alpha in (1.5, 0.25)
    ]
    g.end(g.node("Add", g.node("Add", *terms), x))
    network = compared(g, tmp_path, FRAME)
    assert len(joined(network)) == 1
    assert network.layers()[1].coefficients[:, 0].tolist() == [6, 1]


class TestRefusals:
    def test_shortcut_in_which_branches_meet(self, tmp_path):
        g = Blocks()
        x = g.stem()
        y = g.node("Add", x, g.conv(g.bipolar(x)))
        side = g.node("Add", x, g.conv(g.bipolar(x)))
        g.end(g.node("Add", g.conv(g.bipolar(y)), g.conv(g.bipolar(side)), name="add"))
        assert "node 'add' (Add) joins a shortcut in which branches meet as well" in refusal(
            g, tmp_path
        )

    @pytest.mark.parametrize("later", [True, False])
    def test_shortcut_that_begins_on_a_shortcut(self, later, tmp_path):
        g = Blocks()
        x = g.bipolar(g.stem())
        side = g.bipolar(g.conv(x))
        y, z = g.conv(g.bipolar(g.conv(g.bipolar(g.conv(x))))), g.conv(side)
        terms = [y, z, g.conv(side, pads=[1] * 4)]
        if later:
            y = g.conv(g.bipolar(g.node("Add", y, z)))
            g.end(g.node("Add", y, terms[2], name="add"))
        else:
            terms[2] = g.conv(g.bipolar(terms[2]))
            g.end(g.node("Sum", *terms, name="add"))
        assert "node 'add' (Add) joins a shortcut that begins on another shortcut" in refusal(
            g, tmp_path
        ).replace("(Sum)", "(Add)")

    @pytest.mark.parametrize("kind", ["Add", "Concat"])
    def test_shapes(self, kind, tmp_path):
        g = Blocks()
        x = g.stem()
        y = g.conv(g.bipolar(x), 4, 3, strides=[2, 2])
        g.end(g.node(kind, y, x, name="bad", **({"axis": 1} if kind == "Concat" else {})), 3)
        assert f"'bad' ({kind}) joins frames of shape (3, 3, 4) and (4, 6, 8)" in refusal(
            g, tmp_path
        )

    def test_other_axes(self, tmp_path):
        g = Blocks()
        x = g.stem()
        g.end(g.node("Concat", x, x, name="bad", axis=2))
        assert "'bad' (Concat) joins frames of shape (4, 6, 8) along the axis 2" in refusal(
            g, tmp_path
        )

    def test_constants_among_branches(self, tmp_path):
        g = Blocks()
        x = g.stem()
        zeros = g.constant(np.zeros((1, 4, 6, 8)))
        g.end(g.node("Concat", x, zeros, x, name="bad", axis=1), 12)
        assert "'bad' (Concat) joins branches and a constant" in refusal(g, tmp_path)

    def test_one_branch_and_a_constant(self, tmp_path):
        g = Blocks()
        zeros = g.constant(np.zeros((1, 4, 6, 8)))
        g.end(g.node("Concat", g.stem(), zeros, name="bad", axis=1), 8)
        assert "'bad' (Concat) joins a tensor and constants" in refusal(g, tmp_path)

    def test_activation_before_a_join(self, tmp_path):
        g = Blocks()
        x = g.node("Relu", g.stem(), name="relu")
        y = g.conv(g.quant(x, 0.5, 0, 2, signed=0))
        g.end(g.node("Add", x, y))
        assert "node 'relu' (Relu) is an activation that nothing quantizes" in refusal(g, tmp_path)

    def test_products_of_branches(self, tmp_path):
        g = Blocks()
        x = g.stem()
        g.end(g.node("Mul", x, g.conv(g.bipolar(x)), name="bad"))
        assert "'bad' (Mul) computes with tensors" in refusal(g, tmp_path)

    def test_frame_before_its_quantizer(self, tmp_path):
        g = Blocks()
        y = g.conv(g.bipolar("x"), 2, 2)
        g.end(g.node("Add", "x", y, name="bad"), 2)
        assert "'bad' (Add) joins the frame as it is before anything quantizes it" in refusal(
            g, tmp_path
        )

    def test_all_obstacles_behind_a_join_are_told(self, tmp_path):
        g = Blocks()
        x = g.stem()
        x = g.node("Add", x, g.conv(g.bipolar(x), 4, 3), name="one")
        x = g.node("Sigmoid", x, name="two")
        g.node("Gemm", g.node("Flatten", x), g.constant(g.rng.normal(0, 1, (192, 3))), name="three")
        message = refusal(g, tmp_path)
        assert "'one'" in message
        assert "2 more" in message


@pytest.mark.parametrize("kind", ["Add", "Sum"])
def test_the_same_tensor_twice_is_twice_as_much(kind, tmp_path):
    g = Drawn()
    x = g.first()
    g.last(g.quant(g.node(kind, x, x), 0.5, 0, 3))
    assert joined(compared(g, tmp_path)) == []


def test_notes_of_all_branches_are_kept(tmp_path):
    g = Blocks()
    x = g.stem()
    y = g.conv(g.bipolar(g.node("Tanh", x, name="tanh")))
    side = g.bipolar(g.node("Softsign", x, name="soft"))
    g.end(g.node("Add", y, side))
    notes = " ".join(read(g.save(tmp_path)).network.notes)
    assert "tanh" in notes
    assert "soft" in notes
