"""Sliding windows give the windows of a numpy reference, at the cycles they declare."""

import numpy as np
import pytest
from amaranth import signed, unsigned
from amaranth.hdl import Shape
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from stream_bench import run_stream

from xnorflow.hw.parallel_window import ParallelWindow
from xnorflow.hw.sliding_window import SlidingWindow, WindowGeometry


def windows(images, geometry, pad_values):
    """Return taps (N, H_out, W_out, KH, KW, C) and which are padding (H_out, W_out, KH, KW)."""
    height, width, _ = images.shape[1:]
    top, left, bottom, right = geometry.padding
    (rows, columns), (sy, sx), (dy, dx) = geometry.outputs, geometry.stride, geometry.dilation
    padded = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    real = np.pad(np.ones((height, width), bool), ((top, bottom), (left, right)))
    y = np.arange(rows)[:, None, None, None] * sy + np.arange(geometry.kernel[0])[:, None] * dy
    x = np.arange(columns)[:, None, None] * sx + np.arange(geometry.kernel[1]) * dx
    taps = padded[:, y, x]
    pads = ~real[y, x]
    taps[:, pads] = pad_values
    return taps, pads


def pack(values, lanes, element):
    """Cut rows of elements into payloads of `lanes`, lane 0 lowest."""
    width = Shape.cast(element).width
    rows = (values.reshape(-1, lanes) & ((1 << width) - 1)).tolist()
    return [sum(v << (n * width) for n, v in enumerate(row)) for row in rows]


@st.composite
def geometries(draw):
    """Return small shapes, kernels, strides, dilations and paddings that fit each other."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (2, 1), (2, 2), (4, 2)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1)]))
    padding = draw(
        st.one_of(
            st.just((0, 0, 0, 0)),
            st.just((1, 1, 1, 1)),
            st.tuples(*[st.integers(0, 3)] * 4),
            st.tuples(*[st.integers(0, 6)] * 4),
        )
    )
    lowest = [
        max(1, (kernel[a] - 1) * dilation[a] + 1 - padding[a] - padding[a + 2]) for a in (0, 1)
    ]
    height, width = (draw(st.integers(low, low + 4)) for low in lowest)
    return (height, width), kernel, {"stride": stride, "dilation": dilation, "padding": padding}


elements = st.sampled_from([unsigned(1), unsigned(8), signed(3)])
no_shrinking = [Phase.explicit, Phase.generate]  # it takes minutes in the simulator
stalls = st.sampled_from([0.0, 0.3, 0.8])
seeds = st.integers(0, 1000)


def random_values(rng, element, shape):
    limits = Shape.cast(element)
    low = -(1 << limits.width - 1) if limits.signed else 0
    return rng.integers(low, low + (1 << limits.width), shape)


class TestSlidingWindow:
    @settings(max_examples=25, deadline=None, phases=no_shrinking)
    @given(
        places=geometries(),
        folds=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 1, 3), (1, 2, 2)]),
        element=elements,
        padding_kind=st.sampled_from(["zeros", "values", "flag"]),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    def test_gives_every_window(self, places, folds, element, padding_kind, i_stall, o_stall, seed):
        image, kernel, options = places
        lanes, in_group, groups = folds
        channels = lanes * in_group * groups
        rng = np.random.default_rng(seed)
        values = None if padding_kind != "values" else random_values(rng, element, channels)
        flag = padding_kind == "flag"
        dut = SlidingWindow(
            element,
            (*image, channels),
            kernel,
            lanes=lanes,
            groups=groups,
            pad_values=values,
            zero_flag=flag,
            **options,
        )
        assert Shape.cast(dut.o.payload.shape()).width == lanes * Shape.cast(element).width + flag
        images = random_values(rng, element, (3, *image, channels))
        taps, pads = windows(images, dut.geometry, 0 if values is None else values)
        # (N, H_out, W_out, group, KH, KW, channel in group)
        taps = np.moveaxis(taps.reshape(*taps.shape[:-1], groups, -1), -2, 3)
        expected = pack(taps, lanes, element)
        if flag:
            pads = np.broadcast_to(pads[:, :, None, :, :, None], (*taps.shape[1:-1], in_group))
            width = lanes * Shape.cast(element).width
            flags = np.tile(pads.reshape(-1), 3).tolist()
            expected = [word | pad << width for word, pad in zip(expected, flags, strict=True)]
        got, *_ = run_stream(
            dut,
            pack(images, lanes, element),
            len(expected),
            seed=seed,
            i_stall=i_stall,
            o_stall=o_stall,
        )
        assert got == expected

    @settings(max_examples=25, deadline=None, phases=no_shrinking)
    @given(
        places=geometries(),
        folds=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 1, 2)]),
        seed=seeds,
    )
    # With a row less the input would wait for a single cycle.
    @example(
        places=((3, 6), (2, 2), {"stride": (3, 3), "dilation": (1, 1), "padding": (1, 0, 0, 0)}),
        folds=(1, 1, 1),
        seed=0,
    )
    @example(
        places=((7, 3), (2, 2), {"stride": (3, 1), "dilation": (1, 2), "padding": (2, 0, 0, 0)}),
        folds=(1, 1, 1),
        seed=0,
    )
    def test_takes_the_cycles_that_it_declares(self, places, folds, seed):
        image, kernel, options = places
        lanes, in_group, groups = folds
        channels = lanes * in_group * groups
        dut = SlidingWindow(
            unsigned(1), (*image, channels), kernel, lanes=lanes, groups=groups, **options
        )
        beats_in = image[0] * image[1] * channels // lanes
        beats = int(np.prod(dut.geometry.outputs)) * kernel[0] * kernel[1] * channels // lanes
        frames = 3 + -(-dut.rows // image[0])
        sent = [0] * (beats_in * frames)
        _, taken, left = run_stream(dut, sent, frames * beats)
        ends = left[beats - 1 :: beats]
        assert ends[-1] - ends[-2] == dut.cycles_per_frame
        if dut.cycles_per_frame > beats_in:  # the output limits
            steady = left[-2 * beats :]
            assert steady == list(range(steady[0], steady[0] + 2 * beats))
        else:
            assert taken == list(range(len(sent)))
        assert left[:beats] == dut.schedule(np.arange(beats_in)).tolist()

    @settings(max_examples=20, deadline=None, phases=no_shrinking)
    @given(places=geometries(), seed=seeds)
    def test_keeps_its_schedule_when_the_input_comes_late(self, places, seed):
        image, kernel, options = places
        dut = SlidingWindow(unsigned(1), (*image, 4), kernel, lanes=2, **options)
        beats_in = image[0] * image[1] * 2
        beats = len(dut.needs()) * kernel[0] * kernel[1] * 2
        _, taken, left = run_stream(dut, [0] * beats_in, beats, seed=seed, i_stall=0.7)
        assert left == dut.schedule(np.array(taken)).tolist()

    @settings(max_examples=20, deadline=None, phases=no_shrinking)
    @given(places=geometries())
    def test_rows_are_the_fewest(self, places):
        image, kernel, options = places
        dut = SlidingWindow(unsigned(1), (*image, 1), kernel, lanes=1, **options)
        if dut.rows > 1:
            dut.rows -= 1
            frames = 4 + -(-dut.rows // image[0])
            beats = len(dut.needs()) * kernel[0] * kernel[1]
            pixels = image[0] * image[1]
            try:
                _, taken, left = run_stream(
                    dut, [0] * (pixels * frames), frames * beats, timeout=frames * 1000
                )
            except AssertionError:
                return  # the windows do not even fit
            waits = left[-1] - left[-1 - 2 * beats] > 2 * beats
            assert waits if dut.cycles_per_frame > pixels else taken[-1] > len(taken) - 1

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_without_padding_rows_are_two_kernels_less_one(self, k):
        assert SlidingWindow(1, (16, 16, 4), (k, k), lanes=2).rows == 2 * k - 1


class TestParallelWindow:
    @settings(max_examples=40, deadline=None, phases=no_shrinking)
    @given(
        places=geometries(),
        channels=st.sampled_from([1, 2, 4]),
        element=elements,
        padding_kind=st.sampled_from(["zeros", "values", "flag"]),
        i_stall=stalls,
        o_stall=stalls,
        seed=seeds,
    )
    # A row of one pixel: the row memory is a register.
    @example(
        places=((5, 1), (3, 1), {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 0, 0, 0)}),
        channels=2,
        element=unsigned(8),
        padding_kind="zeros",
        i_stall=0.3,
        o_stall=0.3,
        seed=1,
    )
    # More rows of padding than the kernel reaches: the rows that are kept do not meet the taps.
    @example(
        places=((4, 3), (2, 1), {"stride": (1, 1), "dilation": (2, 1), "padding": (5, 0, 1, 0)}),
        channels=1,
        element=unsigned(1),
        padding_kind="values",
        i_stall=0.0,
        o_stall=0.3,
        seed=0,
    )
    def test_gives_every_window(
        self, places, channels, element, padding_kind, i_stall, o_stall, seed
    ):
        image, kernel, options = places
        rng = np.random.default_rng(seed)
        values = None if padding_kind != "values" else random_values(rng, element, channels)
        flag = padding_kind == "flag"
        granule = max(1, channels // 2)
        dut = ParallelWindow(
            element,
            (*image, channels),
            kernel,
            pad_values=values,
            zero_flag=flag,
            granule=granule if flag else None,
            **options,
        )
        images = random_values(rng, element, (3, *image, channels))
        taps, pads = windows(images, dut.geometry, 0 if values is None else values)
        if flag:
            width = granule * Shape.cast(element).width
            size = taps[0].size // granule
            flags = np.tile(np.repeat(pads.reshape(-1), channels // granule), 3).tolist()
            words = zip(pack(taps, granule, element), flags, strict=True)
            flagged = [word | pad << width for word, pad in words]
            per_window = size // len(dut.needs())
            expected = [
                sum(word << n * (width + 1) for n, word in enumerate(flagged[at : at + per_window]))
                for at in range(0, len(flagged), per_window)
            ]
        else:
            expected = pack(taps, kernel[0] * kernel[1] * channels, element)
        # Three frames only: the last windows come without further input.
        got, *_ = run_stream(
            dut,
            pack(images, channels, element),
            len(expected),
            seed=seed,
            i_stall=i_stall,
            o_stall=o_stall,
        )
        assert got == expected

    @settings(max_examples=40, deadline=None, phases=no_shrinking)
    @given(places=geometries(), seed=seeds)
    def test_takes_the_cycles_that_it_declares(self, places, seed):
        image, kernel, options = places
        dut = ParallelWindow(unsigned(1), (*image, 1), kernel, **options)
        pixels, count = image[0] * image[1], len(dut.needs())
        _, taken, left = run_stream(dut, [0] * (4 * pixels), 4 * count)
        starts = taken[::pixels]
        assert np.diff(starts).tolist() == [dut.cycles_per_frame] * 3
        assert left[2 * count] - left[count] == dut.cycles_per_frame
        assert left[:count] == dut.schedule(np.arange(pixels)).tolist()

    @settings(max_examples=20, deadline=None, phases=no_shrinking)
    @given(places=geometries(), seed=seeds)
    def test_keeps_its_schedule_when_the_input_comes_late(self, places, seed):
        image, kernel, options = places
        dut = ParallelWindow(unsigned(1), (*image, 1), kernel, **options)
        count = len(dut.needs())
        sent = [0] * (image[0] * image[1])
        _, taken, left = run_stream(dut, sent, count, seed=seed, i_stall=0.7)
        assert left == dut.schedule(np.array(taken)).tolist()

    @pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)])
    def test_takes_a_pixel_a_cycle_when_the_output_is_no_larger(self, padding):
        dut = ParallelWindow(1, (7, 9, 1), (5, 5), padding=padding)
        assert dut.cycles_per_frame == 63

    def test_keeps_one_row_less_than_the_kernel_has(self):
        dut = ParallelWindow(1, (7, 9, 1), (5, 5), padding=(2, 2, 2, 2))
        assert (dut.row_words, dut.row_word_pixels) == (9, 4)


@pytest.mark.parametrize("component", [SlidingWindow, ParallelWindow])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": (5, 3)}, "height with dilation must be at most 4"),
        ({"dilation": (1, 2)}, "width with dilation must be at most 4, .* not 5"),
        ({"stride": (0, 1)}, "stride must be at least 1"),
        ({"padding": (0, -1, 0, 0)}, "padding must be at least 0"),
        ({"pad_values": np.zeros(3, int)}, r"shape \(6,\)"),
        ({"pad_values": np.full(6, 2)}, r"in 0 \.\. 1"),
        ({"pad_values": np.zeros(6, int), "zero_flag": True}, "left out with zero_flag"),
    ],
)
def test_refuses_what_is_illegal_and_says_what_is_legal(component, options, message):
    if component is SlidingWindow:
        options = {"lanes": 1, **options}
    with pytest.raises(ValueError, match=message):
        component(unsigned(1), (4, 4, 6), **{"kernel": (3, 3), **options})


def test_windows_on_nothing_but_padding_need_no_pixel():
    geometry = WindowGeometry((2, 2, 1), (1, 1), padding=(1, 1, 0, 0))
    assert geometry.needs().tolist() == [-1, -1, -1, -1, 0, 1, -1, 2, 3]
    assert geometry.required().tolist() == [1, 1, 1, 1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(("element", "low", "high"), [(signed(3), -4, 3), (unsigned(2), 0, 3)])
def test_padding_values_are_those_of_an_element(element, low, high):
    for value in (low, high):
        SlidingWindow(element, (4, 4, 1), (3, 3), lanes=1, pad_values=np.array([value]))
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=rf"must be in {low} \.\. {high}, the range"):
            SlidingWindow(element, (4, 4, 1), (3, 3), lanes=1, pad_values=np.array([value]))


def test_windows_touch_each_other_and_nothing_is_padded_unless_told():
    geometry = WindowGeometry((5, 4, 2), (3, 2))
    assert geometry.outputs == (3, 3)
    assert geometry.taps(0).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    for component in (
        SlidingWindow(1, (5, 4, 2), (3, 2), lanes=2),
        ParallelWindow(1, (5, 4, 2), (3, 2)),
    ):
        assert component.geometry == geometry


def test_refuses_lanes_groups_and_granules_that_do_not_divide():
    with pytest.raises(ValueError, match=r"lanes must be one of \[1, 3\], not 2"):
        SlidingWindow(1, (4, 4, 6), (3, 3), lanes=2, groups=2)
    with pytest.raises(ValueError, match=r"groups must be one of \[1, 2, 3, 6\], not 4"):
        SlidingWindow(1, (4, 4, 6), (3, 3), lanes=1, groups=4)
    with pytest.raises(ValueError, match=r"granule must be one of \[1, 2, 3, 6\], not 4"):
        ParallelWindow(1, (4, 4, 6), (3, 3), zero_flag=True, granule=4)
