"""Changes of the hardware, each with the test that must catch it."""

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation", "StaleMutation"]


class StaleMutation(Exception):
    """The text that a mutation changes is no longer there, or there more than once."""


@dataclass(frozen=True)
class Mutation:
    """One wrong line of hardware.

    Attributes
    ----------
    name : str
        What is wrong with it.
    file : str
        Relative to the repository's root.
    old, new : str
        The text that is replaced, found exactly once, and what comes instead.
    test : str
        Node id of the test that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    def apply(self, text: str) -> str:
        """Return the changed text of the file.

        Raises
        ------
        StaleMutation
            If `old` is not found exactly once.
        """
        count = text.count(self.old)
        if count != 1:
            raise StaleMutation(
                f"mutation '{self.name}' is stale: {self.file} holds its text {count} times, "
                "not once; write it anew"
            )
        return text.replace(self.old, self.new)


_CHAINS = "tests/boards/test_chains.py::"
_EQUAL_INPUTS = "tests/boards/test_equal_inputs.py::"
_FANOUT = "tests/boards/test_fanout.py::"
_OUTPUT_REGISTERS = "tests/boards/test_output_registers.py::"
_STAGES = "tests/hw/test_stream_stages.py::"
_ARITHMETIC = "tests/hw/test_arithmetic.py::"
_AGREEMENT = "tests/hw/test_agreement.py::"
_PLANES = "tests/hw/test_plane_sum.py::"
_LEVELS = "tests/hw/test_multi_threshold.py::"
_JOIN = "tests/hw/test_join.py::"
_MAGNITUDE = "tests/hw/test_magnitude.py::TestMagnitudeUnit::test_adds_up_every_pixel"
_GAIN = "tests/hw/test_magnitude.py::TestGainUnit::test_multiplies_every_pixel"
_MVU = "tests/hw/test_mvu.py::"
_POOL = "tests/hw/test_pool.py::"
_WINDOW = "tests/hw/test_sliding_window.py::"
_RESIZE = "tests/hw/test_resize.py::"
_HOST = "tests/hw/test_link_host.py::"
_CREDITS = _HOST + "TestCredits::"
_UART = "tests/hw/test_link_uart.py::"
_COBS = "tests/hw/test_link_cobs.py::"
_TOP = "tests/boards/test_top.py::"
_PROOFS = "tests/proofs/test_prove_streams.py::test_stream_rules_hold_at_all_times"
_PROOFS_OF_NUMBERS = "tests/proofs/test_prove_arithmetic.py::"

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "pins of carry cells: the truth table does not expect a 1",
        "boards/chains.py",
        "n & ~(1 << bit)",
        "n | (1 << bit)",
        "tests/boards/test_chains.py::test_cells_without_low_pins_add_the_same",
    ),
    # --- skid buffer, FIFO, replay buffer, width converter, resizer ---
    Mutation(
        "skid buffer loses the beat that it caught",
        "hw/skid.py",
        "m.d.sync += full.eq(self.o.valid & ~self.o.ready)",
        "m.d.sync += full.eq(self.i.valid & ~self.o.ready)",
        _STAGES + "TestSkidBuffer::test_passes_every_beat",
    ),
    Mutation(
        "skid buffer: stale payload while waiting",
        "hw/skid.py",
        "m.d.comb += self.o.payload.eq(caught)",
        "m.d.comb += self.o.payload.eq(self.i.payload)",
        _STAGES + "TestSkidBuffer::test_passes_every_beat",
    ),
    Mutation(
        "skid buffer is always ready",
        "hw/skid.py",
        "self.i.ready.eq(~full)",
        "self.i.ready.eq(1)",
        _STAGES + "TestSkidBuffer::test_passes_every_beat",
    ),
    Mutation(
        "FIFO takes beats while it is full",
        "hw/fifo.py",
        "self.i.ready.eq(fifo.w_rdy)",
        "self.i.ready.eq(1)",
        _STAGES + "TestStreamFIFO::test_passes_every_beat",
    ),
    Mutation(
        "FIFO takes a beat off while nobody is ready",
        "hw/fifo.py",
        "fifo.r_en.eq(self.o.ready)",
        "fifo.r_en.eq(fifo.r_rdy)",
        _STAGES + "TestStreamFIFO::test_passes_every_beat",
    ),
    Mutation(
        "FIFO is a word shallower than asked for",
        "hw/fifo.py",
        "SyncFIFOBuffered(width=width, depth=self.depth)",
        "SyncFIFOBuffered(width=width, depth=max(1, self.depth - 1))",
        _STAGES + "TestStreamFIFO::test_holds_as_many_beats_as_asked_for",
    ),
    Mutation(
        "replay buffer: ring pointer wraps a word late",
        "hw/replay_buffer.py",
        "Mux(pointer == depth - 1, 0, pointer + 1)",
        "Mux(pointer == depth, 0, pointer + 1)",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer: a place is freed in the first round instead of the last",
        "hw/replay_buffer.py",
        "fetch & last_round, accept, depth",
        "fetch & first_round, accept, depth",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer reads words that have not come",
        "hw/replay_buffer.py",
        "(~first_round | fresh)",
        "(~first_round | room)",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer: room is seen a word late",
        "hw/replay_buffer.py",
        "(some & ~down)",
        "(some & down)",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer: its last word counts as waiting after it was taken",
        "hw/replay_buffer.py",
        "some.eq(several | up | (some & ~down))",
        "some.eq(several | up | some)",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer: a further round begins a word too late",
        "hw/replay_buffer.py",
        "Mux(ending & ~last_round, start, after(read.addr))",
        "Mux(ending & ~last_round, after(start), after(read.addr))",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "replay buffer: words counted forget the one that just went",
        "hw/replay_buffer.py",
        "((count == 3) & ~less)",
        "(count == 3)",
        _STAGES + "TestReplayBuffer::test_gives_each_vector_so_many_times",
    ),
    Mutation(
        "widening: a beat is taken while a full word waits",
        "hw/width_converter.py",
        "self.i.ready.eq(~self.o.valid | self.o.ready)",
        "self.i.ready.eq(1)",
        _STAGES + "TestWidthConverter::test_keeps_every_element_in_order",
    ),
    Mutation(
        "widening: lanes in reverse order",
        "hw/width_converter.py",
        "m.d.sync += word.as_value().eq(shifted | top)",
        "m.d.sync += word.as_value().eq(word.as_value() << len(self.i.payload.as_value())"
        " | self.i.payload.as_value())",
        _STAGES + "TestWidthConverter::test_keeps_every_element_in_order",
    ),
    Mutation(
        "narrowing: the next beat is taken a part too early",
        "hw/width_converter.py",
        "taking.eq(left == 2)",
        "taking.eq(left == 3)",
        _STAGES + "TestWidthConverter::test_keeps_every_element_in_order",
    ),
    Mutation(
        "narrowing: a beat gives a part too few",
        "hw/width_converter.py",
        "left.eq(self.ratio),",
        "left.eq(self.ratio - 1),",
        _STAGES + "TestWidthConverter::test_keeps_every_element_in_order",
    ),
    Mutation(
        "resizer: the element behind the last one is not zero",
        "hw/resize.py",
        "own.eq(beat < min(self.i_beats, self.o_beats))",
        "own.eq(beat <= min(self.i_beats, self.o_beats))",
        _RESIZE + "test_vectors_get_zeros_or_lose_their_end",
    ),
    Mutation(
        "resizer: garbage instead of zeros",
        "hw/resize.py",
        "m.d.comb += self.o.payload.as_value().eq(0)",
        "m.d.comb += self.o.payload.as_value().eq(self.i.payload.as_value())",
        _RESIZE + "test_vectors_get_zeros_or_lose_their_end",
    ),
    # --- planes and levels ---
    Mutation(
        "planes: a negative coefficient keeps its signs",
        "hw/plane_sum.py",
        "np.where(negative, -weights, weights)",
        "np.where(negative, weights, weights)",
        _PLANES + "test_positive_planes_are_the_same_weights",
    ),
    Mutation(
        "planes: products with the coefficients of the beat before",
        "hw/plane_sum.py",
        'counts = delay(m, counts, 1, self.en, "count")',
        "counts = counts",
        _PLANES + "test_four_planes_are_summed_in_every_folding",
    ),
    Mutation(
        "planes: the accumulator keeps the neuron before",
        "hw/plane_sum.py",
        "(acc & (~flags[1]).replicate(len(acc)))",
        "acc",
        _PLANES + "test_planes_are_summed_with_their_coefficients",
    ),
    Mutation(
        "planes: the accumulator counts beats that are not valid",
        "hw/plane_sum.py",
        "with m.If(self.en & flags[0]):",
        "with m.If(self.en):",
        _PLANES + "test_planes_are_summed_with_their_coefficients",
    ),
    Mutation(
        "planes: a sum is told after each of a neuron's beats",
        "hw/plane_sum.py",
        "delay(m, self.valid & last, self.latency, self.en",
        "delay(m, self.valid, self.latency, self.en",
        _PLANES + "test_planes_are_summed_with_their_coefficients",
    ),
    Mutation(
        "planes: a gated shift is a place too low",
        "hw/plane_sum.py",
        "gain[bit].replicate(len(counts[p]))) << bit)",
        "gain[bit].replicate(len(counts[p]))) << max(bit - 1, 0))",
        _PLANES + "test_four_planes_are_summed_in_every_folding",
    ),
    Mutation(
        "planes: coefficients stay those of the first neuron",
        "hw/plane_sum.py",
        "beat.eq(Mux(beat == len(table) - 1, 0, beat + 1))",
        "beat.eq(0)",
        _PLANES + "test_four_planes_are_summed_in_every_folding",
    ),
    Mutation(
        "levels: > instead of >=",
        "hw/multi_threshold.py",
        "count >= limit for count, limit",
        "count > limit for count, limit",
        _LEVELS + "test_every_count_finds_its_level",
    ),
    Mutation(
        "levels: bits found in the wrong order",
        "hw/multi_threshold.py",
        "bits.eq(found[p] << 1 | reached[p])",
        "bits.eq(found[p] | reached[p] << step)",
        _LEVELS + "test_every_count_finds_its_level",
    ),
    Mutation(
        "levels: missing thresholds are reached",
        "hw/multi_threshold.py",
        "(1 << bits, *thresholds.shape[1:]), top + 1, np.int64",
        "(1 << bits, *thresholds.shape[1:]), 0, np.int64",
        _LEVELS + "test_every_count_finds_its_level",
    ),
    Mutation(
        "levels: the fold does not go along with its count",
        "hw/multi_threshold.py",
        'fold = delay(m, fold, 1, self.en, f"fold_{step}")',
        "fold = fold",
        _LEVELS + "test_every_count_finds_its_level",
    ),
    Mutation(
        "levels: equal rows count once",
        "hw/multi_threshold.py",
        "thresholds[last], [0, *(last + 1).tolist()]",
        "thresholds[last], list(range(len(last) + 1))",
        _LEVELS + "test_equal_rows_are_searched_once",
    ),
    Mutation(
        "levels: the lower half of the results where the upper one is meant",
        "hw/multi_threshold.py",
        "Mux(reached[half - 1], above, below)",
        "Mux(reached[half - 1], below, above)",
        _LEVELS + "test_every_count_finds_its_level",
    ),
    # --- forks and joins ---
    Mutation(
        "fork: a consumer gets a beat again while the other waits",
        "hw/join.py",
        "output.valid.eq(self.i.valid & ~had)",
        "output.valid.eq(self.i.valid)",
        _JOIN + "TestStreamFork::test_both_consumers_get_every_beat",
    ),
    Mutation(
        "fork: goes on when one of both has the beat",
        "hw/join.py",
        "self.i.ready.eq(has[0] & has[1])",
        "self.i.ready.eq(has[0] | has[1])",
        _JOIN + "TestStreamFork::test_both_consumers_get_every_beat",
    ),
    Mutation(
        "fork: offers a beat only if the consumers are ready",
        "hw/join.py",
        "output.valid.eq(self.i.valid & ~had)",
        "output.valid.eq(self.i.valid & ~had & output.ready)",
        _PROOFS + "[fork-looked_at=o]",
    ),
    Mutation(
        "join: takes a beat although the other stream has none",
        "hw/join.py",
        "self.i.ready.eq(en & self.side.valid)",
        "self.i.ready.eq(en)",
        _JOIN + "TestJoinUnit::test_joins_every_pixel",
    ),
    Mutation(
        "join: gains of the beat before",
        "hw/join.py",
        "delay(m, stream_in.payload, int(self._varying), en",
        "delay(m, stream_in.payload, 0, en",
        _JOIN + "TestJoinUnit::test_joins_every_pixel",
    ),
    Mutation(
        "join: channels are put on the wrong side",
        "hw/join.py",
        'own, other = (self.i, self.side) if self.how == "append" else (self.side, self.i)',
        "own, other = self.side, self.i",
        _JOIN + "TestJoinUnit::test_joins_every_pixel",
    ),
    Mutation(
        "join: the second stream's turn comes a beat late",
        "hw/join.py",
        "turn.eq(beat >= first)",
        "turn.eq(beat > first)",
        _JOIN + "TestJoinUnit::test_joins_every_pixel",
    ),
    Mutation(
        "join: an element is wider than it need be",
        "hw/join.py",
        "return unsigned(bits_for(high))",
        "return signed(bits_for(high) + 1)",
        _JOIN + "TestJoinUnit::test_the_narrowest_shape_holds_both_ends",
    ),
    Mutation(
        "magnitude: a negative sum stays negative",
        "hw/magnitude.py",
        "magnitude.eq(Mux(moved < 0, -moved, moved))",
        "magnitude.eq(moved)",
        _MAGNITUDE,
    ),
    Mutation(
        "magnitude: rounds down",
        "hw/magnitude.py",
        "self.half = (1 << shift) // 2",
        "self.half = 0",
        _MAGNITUDE,
    ),
    Mutation(
        "magnitude: a pixel begins with the sum of the one before",
        "hw/magnitude.py",
        "Mux(first, self.half, total)",
        "total",
        _MAGNITUDE,
    ),
    Mutation(
        "magnitude: an idle cycle is accumulated",
        "hw/magnitude.py",
        "with m.If(en & valid[-1]):",
        "with m.If(en):",
        _MAGNITUDE,
    ),
    Mutation(
        "magnitude: gains come a beat before their elements",
        "hw/magnitude.py",
        'delay(m, self.i.payload, self._varying, en, "element")',
        'delay(m, self.i.payload, 0, en, "element")',
        _MAGNITUDE,
    ),
    Mutation(
        "magnitude: lanes are ORed",
        "hw/magnitude.py",
        "sums = [one + two for one, two",
        "sums = [one | two for one, two",
        _MAGNITUDE,
    ),
    Mutation(
        "gain: every beat takes one",
        "hw/gain.py",
        "self.side.ready.eq(en & self.i.valid & first)",
        "self.side.ready.eq(en & self.i.valid)",
        _GAIN,
    ),
    Mutation(
        "gain: a pixel goes on without its gain",
        "hw/gain.py",
        "both.eq(self.i.valid & (self.side.valid | ~first))",
        "both.eq(self.i.valid)",
        _GAIN,
    ),
    Mutation(
        "gain: one is taken before its pixel has come",
        "hw/gain.py",
        "self.side.ready.eq(en & self.i.valid & first)",
        "self.side.ready.eq(en & first)",
        _GAIN,
    ),
    Mutation(
        "gain: it is not kept for a pixel's other beats",
        "hw/gain.py",
        "with m.If(en & first):",
        "with m.If(en):",
        _GAIN,
    ),
    Mutation(
        "gain: a pixel's other beats wait for the next gain",
        "hw/gain.py",
        "self.i.ready.eq(en & (self.side.valid | ~first))",
        "self.i.ready.eq(en & self.side.valid)",
        _PROOFS + "[gain-channels=2]",
    ),
    Mutation(
        "pool: the minimum instead of the maximum",
        "hw/pool.py",
        "Mux(partial < above, above, partial)",
        "Mux(above < partial, above, partial)",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: a negative number is larger than a positive one",
        "hw/pool.py",
        'sign = 1 << self.element.width - 1 if self.op == "max" and self.element.signed else 0',
        "sign = 0",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "MVU: planes' sums do not tell when they come",
        "hw/mvu.py",
        "settled, outputs = planes.done, planes.o.as_value()",
        "outputs = planes.o.as_value()",
        _MVU + "test_lanes_groups_and_heads_match_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: base of planes without their coefficients",
        "hw/mvu.py",
        "return (coefficients * base.reshape(-1, len(coefficients)).T).sum(axis=0)",
        "return base.reshape(-1, len(coefficients)).sum(axis=1)",
        _MVU + "test_lanes_groups_and_heads_match_numpy_under_back_pressure",
    ),
    Mutation(
        "threshold stage: only the first of several thresholds",
        "hw/threshold_stage.py",
        "several = len(counts) > 1",
        "several = False",
        _POOL + "TestThresholdStage::test_counts_the_thresholds_that_every_channel_reaches",
    ),
    # --- arithmetic ---
    Mutation(
        "delay chain shifts while it is not enabled",
        "hw/pipeline.py",
        "with m.If(en):",
        "with m.If(1):",
        _ARITHMETIC + "test_threshold_unit_compares_with_its_folds_threshold",
    ),
    Mutation(
        "adder tree: carry lost at the width of the left addend",
        "hw/popcount.py",
        "registered(left[0] + right[0], left[1] + right[1])",
        "registered(left[0] + right[0], left[1])",
        _ARITHMETIC + "test_adder_tree_sums_its_lanes",
    ),
    Mutation(
        "adder tree forgets the lane that has no partner",
        "hw/popcount.py",
        "paired.append(registered(*level[-1]))",
        "paired.append(registered(0, level[-1][1]))",
        _ARITHMETIC + "test_adder_tree_sums_its_lanes",
    ),
    Mutation(
        "adder tree: a padded granule is less than half",
        "hw/popcount.py",
        "root.eq(self.granule // 2)",
        "root.eq(self.granule // 2 - 1)",
        _ARITHMETIC + "test_pe_array_counts_nothing_for_padded_granules",
    ),
    Mutation(
        "PE: weight of integers inverted",
        "hw/pe_array.py",
        "self.a[lane] ^ ~w[lane].replicate(width)",
        "self.a[lane] ^ w[lane].replicate(width)",
        _MVU + "test_lanes_groups_and_heads_match_numpy_under_back_pressure",
    ),
    Mutation(
        "PE: accumulator keeps the neuron before",
        "hw/pe_array.py",
        "kept.eq(acc & (~first).replicate(len(acc)))",
        "kept.eq(acc)",
        _ARITHMETIC + "test_pe_array_counts_agreeing_synapses",
    ),
    Mutation(
        "PE: accumulator counts steps that are not valid",
        "hw/pe_array.py",
        "with m.If(self.en & valid):",
        "with m.If(self.en):",
        _ARITHMETIC + "test_pe_array_ignores_steps_that_are_not_valid",
    ),
    Mutation(
        "PE: padded lanes all disagree",
        "hw/pe_array.py",
        "Mux(unit.pad, 1 - place % 2, xnor)",
        "Mux(unit.pad, 0, xnor)",
        _ARITHMETIC + "test_pe_array_counts_nothing_for_padded_granules",
    ),
    Mutation(
        "agreement: weights that are not inverted",
        "hw/agreement.py",
        "inverse = ~positive\n",
        "inverse = positive\n",
        _AGREEMENT + "test_agreement_tree_counts_agreeing_lanes",
    ),
    Mutation(
        "agreement: the seventh lane does not wait for the other six",
        "hw/agreement.py",
        "seventh = self._later(m, seventh)",
        "pass",
        _AGREEMENT + "test_agreement_tree_counts_agreeing_lanes",
    ),
    Mutation(
        "agreement: inputs that are not mixed",
        "hw/agreement.py",
        "(a[lane] for lane in form)",
        "(a[lane] for lane in form[:1])",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "agreement: a lane goes into the adders of two levels",
        "hw/agreement.py",
        "waiting = self._wait(m, [row[taken:] for row in waiting], level)",
        "waiting = self._wait(m, waiting, level)",
        _AGREEMENT + "test_agreement_tree_counts_agreeing_lanes",
    ),
    Mutation(
        "agreement: carry of seven lanes without the third one",
        "hw/agreement.py",
        "(k & (b1 ^ 1)) | ((k ^ 1) & (t ^ b0))",
        "(k & (b1 ^ 1)) | ((k ^ 1) & t)",
        _AGREEMENT + "test_a_leaf_counts_every_pattern",
    ),
    Mutation(
        "shared counts: a majority keeps its inverse",
        "hw/shared_counts.py",
        "turned = tuple(bit != flip for bit in inverted)",
        "turned = inverted",
        _AGREEMENT + "test_shared_counts_are_right_for_every_pattern",
    ),
    Mutation(
        "carry chain: what is injected comes into the sum",
        "hw/carry_chain.py",
        "return (x, x) if self.new",
        "return (x, Const(0, 1)) if self.new",
        _AGREEMENT + "test_agreement_tree_counts_agreeing_lanes",
    ),
    Mutation(
        "carry chain: a cell propagates what it should replace",
        "hw/carry_chain.py",
        "result = 0 if bits[3] else result",
        "result = 1 if bits[3] else result",
        _AGREEMENT + "test_half_a_ccu2c_adds_what_the_description_adds",
    ),
    Mutation(
        "carry chain: a cell keeps what it should drop",
        "hw/carry_chain.py",
        "bits[1] if bits[3] else bits[2]",
        "bits[1]",
        _AGREEMENT + "test_half_a_ccu2c_adds_what_the_description_adds",
    ),
    Mutation(
        "LUT4 cell: truth table from its end",
        "hw/counting.py",
        "& 1) << index",
        "& 1) << (15 - index)",
        _AGREEMENT + "test_a_lut4_cell_has_the_functions_truth_table",
    ),
    Mutation(
        "accumulator: not cleared behind a neuron",
        "hw/accumulator.py",
        "following = [Mux(cleared, 0, total) for total in totals]",
        "following = totals",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "accumulator: starts in every step",
        "hw/accumulator.py",
        "chosen = Mux(self.first, chosen, 0)",
        "pass",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "accumulator: steps that are not valid begin a neuron",
        "hw/accumulator.py",
        "self.en & self.valid & self.first",
        "self.en & self.first",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "accumulator: cells of ECP5 keep the neuron before",
        "hw/accumulator.py",
        "keep.eq(~self.first)",
        "keep.eq(1)",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "accumulator: > instead of >=",
        "hw/accumulator.py",
        "return (1 << width - 1) - thresholds.astype(np.int64)",
        "return (1 << width - 1) - 1 - thresholds.astype(np.int64)",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "accumulator: a bit too narrow for its thresholds",
        "hw/accumulator.py",
        "(top - least).bit_length(), 1) + 1",
        "(top - least).bit_length(), 1)",
        _AGREEMENT + "test_accumulator_compares_with_its_folds_threshold",
    ),
    Mutation(
        "carry chain: a number's last carry goes on in the next number",
        "hw/carry_chain.py",
        "bits.append(sums[1 : 1 + len(number)])",
        "bits.append(sums[: len(number)])",
        _AGREEMENT + "test_agreement_tree_counts_agreeing_lanes",
    ),
    Mutation(
        "threshold: a late lane that counts only if all others do",
        "hw/threshold.py",
        "(n >> 1) + (n & 1) >= least",
        "(n >> 1) >= least",
        _ARITHMETIC + "test_constant_thresholds_count_a_late_lane",
    ),
    Mutation(
        "accumulator: always the first fold's thresholds",
        "hw/accumulator.py",
        "fold.eq(Mux(fold == self.folds - 1, 0, fold + 1))",
        "fold.eq(0)",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "threshold: > instead of >=",
        "hw/threshold.py",
        "count[p] >= threshold[p]",
        "count[p] > threshold[p]",
        _ARITHMETIC + "test_threshold_unit_compares_with_its_folds_threshold",
    ),
    Mutation(
        "threshold: a constant one ignores the lower bits",
        "hw/threshold.py",
        "(bits.matches(wanted) & reached)",
        "bits.matches(wanted)",
        _ARITHMETIC + "test_constant_thresholds_are_reached_from_themselves_on",
    ),
    Mutation(
        "threshold: that of the fold before",
        "hw/threshold.py",
        'count = delay(m, self.i, self.latency - 1, self.en, "count")',
        "count = self.i",
        _ARITHMETIC + "test_threshold_unit_compares_with_its_folds_threshold",
    ),
    Mutation(
        "score: sign extension of the product is missing",
        "hw/score.py",
        "Signal(layouts.scores(self.pe, signed(self.width + 1)), reset_less=True)",
        "Signal(data.ArrayLayout(self.width - 1, self.pe))",
        _ARITHMETIC + "test_score_unit_is_the_integer_affine_of_the_accumulator",
    ),
    Mutation(
        "score: bias a fold early",
        "hw/score.py",
        'bias = delay(m, bias, 1, self.en, "bias")',
        "pass",
        _ARITHMETIC + "test_score_unit_is_the_integer_affine_of_the_accumulator",
    ),
    Mutation(
        "score: constants read as unsigned",
        "hw/score.py",
        "Shape(width, signed=True)",
        "Shape(width, signed=False)",
        _ARITHMETIC + "test_score_unit_is_the_integer_affine_of_the_accumulator",
    ),
    Mutation(
        "ROM address off by one",
        "hw/rom.py",
        "port.addr.eq(self.addr)",
        "port.addr.eq(self.addr + 1)",
        _ARITHMETIC + "test_rom_gives_its_words_a_cycle_later",
    ),
    Mutation(
        "ROM in banks: the bank is chosen a cycle early",
        "hw/rom.py",
        'delay(m, high, 1, self.en, "bank")',
        "high",
        _ARITHMETIC + "test_rom_in_several_cycles",
    ),
    Mutation(
        "ROM reads while it is not enabled",
        "hw/rom.py",
        "port.en.eq(self.en)",
        "port.en.eq(1)",
        _ARITHMETIC + "test_rom_gives_its_words_a_cycle_later",
    ),
    Mutation(
        "ROM: lanes packed from the top",
        "hw/rom.py",
        "packed = np.packbits(bits.reshape(",
        "packed = np.packbits(bits[:, ::-1].reshape(",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "ROM of LUTs: the last piece gets the bits of the one before",
        "hw/rom.py",
        "init=[word >> start & ((1 << width) - 1) for word in words]",
        "init=[word >> max(0, start - 64) & ((1 << width) - 1) for word in words]",
        _ARITHMETIC + "test_wide_words_come_whole",
    ),
    Mutation(
        "layout: what inverted integers add is taken off one short",
        "hw/layouts.py",
        "return self.top * (weights < 0).sum",
        "return (self.top - 1) * (weights < 0).sum",
        _MVU + "test_lanes_groups_and_heads_match_numpy_under_back_pressure",
    ),
    Mutation(
        "layout: the flag of a result lies below its class",
        "hw/layouts.py",
        '            "index": unsigned(max(1, ceil_log2(classes))),\n'
        '            "last": unsigned(1),\n',
        '            "last": unsigned(1),\n'
        '            "index": unsigned(max(1, ceil_log2(classes))),\n',
        "tests/hw/test_layouts.py::test_a_results_class_and_flag_lie_above_its_scores",
    ),
    # --- matrix-vector unit ---
    Mutation(
        "MVU: inverted weight",
        "hw/mvu.py",
        "folded = (self.weights > 0).reshape(",
        "folded = (self.weights < 0).reshape(",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: weights of PEs and synapse folds swapped",
        "hw/mvu.py",
        "folded.transpose(0, 2, 1, 3)",
        "folded.transpose(0, 1, 2, 3)",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: weight address wraps a step early",
        "hw/mvu.py",
        "Mux(following == self.cycles_per_frame - 1, 0, following + 1)",
        "Mux(following == self.cycles_per_frame - 2, 0, following + 1)",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: it never stalls, so that a finished beat is lost",
        "hw/skid.py",
        "stall.eq(Mux(stall, done, before) & skid.o.valid & ~skid.o.ready)",
        "stall.eq(0)",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: it stalls for the beat that stalled it before",
        "hw/skid.py",
        "stall.eq(Mux(stall, done, before) &",
        "stall.eq(done &",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: thresholds rounded down to counts",
        "hw/mvu.py",
        "least = -((thresholds.astype(np.int64) + base) // -lanes.unit)",
        "least = (thresholds.astype(np.int64) + base) // lanes.unit",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: neuron fold never starts again",
        "hw/mvu.py",
        "fold.eq(Mux(fold == self.neuron_folds - 1, 0, fold + 1))",
        "fold.eq(Mux(fold == self.neuron_folds - 1, fold, fold + 1))",
        _MVU + "test_thresholded_layer_matches_numpy_under_back_pressure",
    ),
    Mutation(
        "MVU: PE groups do not wait for the last one",
        "hw/mvu.py",
        "self.pe_groups - 1 - group, en",
        "0, en",
        _MVU + "test_groups_of_pes_work_one_behind_the_other",
    ),
    Mutation(
        "threshold stage: sign bit is not turned",
        "hw/threshold_stage.py",
        "count.eq(element.as_unsigned() ^ lowest)",
        "count.eq(element.as_unsigned())",
        _POOL + "TestThresholdStage::test_compares_every_channel",
    ),
    Mutation(
        "threshold stage: channel counted without a beat",
        "hw/threshold_stage.py",
        "with m.If(en & self.i.valid):",
        "with m.If(en):",
        _POOL + "TestThresholdStage::test_compares_every_channel",
    ),
    # --- arg-max and core ---
    Mutation(
        "arg-max: tie goes to the higher index",
        "hw/argmax.py",
        "Mux(_more(right.score, left.score), right, left)",
        "Mux(_more(left.score, right.score), left, right)",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: tie between beats goes to the later one",
        "hw/argmax.py",
        "_more(winner.score, best)",
        "~_more(best, winner.score)",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: tie with the beat before goes to the later one",
        "hw/argmax.py",
        "_more(winner.score, latest.score)",
        "~_more(latest.score, winner.score)",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: a beat meets the best without the one in front of it",
        "hw/argmax.py",
        "Mux(is_better, _more",
        "Mux(Signal(), _more",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: scores as if they were not signed",
        "hw/argmax.py",
        "Cat(right[low], left[-1]) < Cat(left[low], right[-1])",
        "right.as_unsigned() < left.as_unsigned()",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: the best of the frame before stays",
        "hw/argmax.py",
        "control[0] & (control[1] | beats_it)",
        "control[0] & beats_it",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "arg-max: lost last flag",
        "hw/argmax.py",
        "result.last.eq(control[2])",
        "result.last.eq(0)",
        "tests/hw/test_argmax.py::test_class_is_numpys_argmax",
    ),
    Mutation(
        "core: a stage is always told that the next one is ready",
        "hw/core.py",
        "source.ready.eq(sink.ready)",
        "source.ready.eq(1)",
        "tests/sim/test_verify.py::test_random_networks_are_bit_exact_under_back_pressure",
    ),
    Mutation(
        "core: latency without that of the arg-max",
        "hw/core.py",
        "self.latency = int(self._schedule()[-1]) + self._argmax.latency",
        "self.latency = int(self._schedule()[-1])",
        "tests/sim/test_verify.py::test_latency_and_cycles_per_frame_are_the_predicted_ones",
    ),
    Mutation(
        "core: a shortcut that is a frame late in the schedule",
        "hw/core.py",
        "times = stage.unit.schedule(times, *others)",
        "times = stage.unit.schedule(times, *[side + 10_000 for side in others])",
        "tests/sim/test_verify_family.py::test_a_shortcut_past_windows_has_the_fifo_that_full_speed_needs",
    ),
    Mutation(
        "core: what stands on a shortcut takes no time",
        "hw/core.py",
        "side = part.unit.schedule(side)",
        "pass",
        "tests/sim/test_residual.py::test_the_shorter_branch_waits_in_a_fifo",
    ),
    # --- windows ---
    Mutation(
        "sliding window: window row wrong by one pixel",
        "hw/sliding_window.py",
        "return int((y * width + x) * self._folds + group * self._loops[-1] + fold)",
        "return int((y * (width - 1) + x) * self._folds + group * self._loops[-1] + fold)",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "sliding window: starts a pixel too early",
        "hw/sliding_window.py",
        "np.maximum(self.needs() + 1, 1)",
        "np.maximum(self.needs(), 1)",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "sliding window: overwrites pixels that are still wanted",
        "hw/sliding_window.py",
        "self.i.ready.eq(excess < 0)",
        "self.i.ready.eq(excess <= 0)",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "sliding window: taps outside count as inside",
        "hw/sliding_window.py",
        "pad_at_address.eq(~(inside[0] & inside[1]))",
        "pad_at_address.eq(~(inside[0] | inside[1]))",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "sliding window: padding value of channel 0 for all channels",
        "hw/sliding_window.py",
        "if any(word.value != words[0].value for word in words):",
        "if False:",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "sliding window: payload changes while it waits",
        "hw/sliding_window.py",
        "enable.eq(~self.o.valid | self.o.ready)",
        "enable.eq(1)",
        _WINDOW + "TestSlidingWindow::test_gives_every_window",
    ),
    Mutation(
        "parallel window: row mask one row late",
        "hw/parallel_window.py",
        "mask.eq(between(place[axis], max(0, -offset), high, top))",
        "mask.eq(between(place[axis], max(0, 1 - offset), high, top))",
        _WINDOW + "TestParallelWindow::test_gives_every_window",
    ),
    Mutation(
        "parallel window: row memory a word too long",
        "hw/parallel_window.py",
        "self.row_words = self._row_step * self.pitch if self.row_word_pixels else 0",
        "self.row_words = self._row_step * self.pitch + 1 if self.row_word_pixels else 0",
        _WINDOW + "TestParallelWindow::test_gives_every_window",
    ),
    Mutation(
        "parallel window: padding value not applied",
        "hw/parallel_window.py",
        "pixel = Mux(pad, constant, kept[ky][age])",
        "pixel = kept[ky][age]",
        _WINDOW + "TestParallelWindow::test_gives_every_window",
    ),
    Mutation(
        "parallel window: the last windows wait for the next frame",
        "hw/parallel_window.py",
        "shift.eq(enable & (self.i.valid | ~has_pixel | (begins & emitting)))",
        "shift.eq(enable & (self.i.valid | ~has_pixel))",
        _WINDOW + "TestParallelWindow::test_gives_every_window",
    ),
    # --- pool ---
    Mutation(
        "pool: AND instead of OR",
        "hw/pool.py",
        "return partial | (element if self._is_plain else element ^ turned)",
        "return partial & (element if self._is_plain else element ^ turned)",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: a falling channel takes the maximum",
        "hw/pool.py",
        "lanes.append(sign ^ ones if column[0] else sign)",
        "lanes.append(sign)",
        _POOL + "TestPoolUnit::test_falling_channels_take_the_minimum",
    ),
    Mutation(
        "pool: all channel groups fall as the first one",
        "hw/pool.py",
        "flags.bit_select(fold, 1)",
        "flags[0]",
        _POOL + "TestPoolUnit::test_falling_channels_take_the_minimum",
    ),
    Mutation(
        "pool: a minimum leaves inverted",
        "hw/pool.py",
        "Cat(partial ^ turn for partial, turn",
        "Cat(partial for partial, turn",
        _POOL + "TestPoolUnit::test_falling_channels_take_the_minimum",
    ),
    Mutation(
        "pool: counter of taps one short",
        "hw/pool.py",
        "self.first_tap, self.last_tap = self.tap == 0, self.tap == kernel - 1",
        "self.first_tap, self.last_tap = self.tap == 0, self.tap == max(0, kernel - 2)",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: a partial result outlives its window",
        "hw/pool.py",
        "line.clear.eq(keep & complete)",
        "line.clear.eq(0)",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: a finished pixel is overwritten while it waits",
        "hw/pool.py",
        "self.i.ready.eq(~self.o.valid | self.o.ready | ~complete)",
        "self.i.ready.eq(1)",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: address of the channel group forgotten",
        "hw/pool.py",
        "write.addr.eq(address(fold.window, x.window))",
        "write.addr.eq(address(Const(0, len(fold.window)), x.window))",
        _POOL + "TestPoolUnit::test_pools_every_window",
    ),
    Mutation(
        "pool: sums a bit too narrow",
        "hw/pool.py",
        "return unsigned(bits_for(terms * ((1 << element.width) - 1)))",
        "return unsigned(bits_for(terms * ((1 << element.width) - 1)) - 1)",
        _POOL + "TestPoolUnit::test_sums_are_just_wide_enough",
    ),
    # --- cost model, which stands beside the hardware ---
    Mutation(
        "cost: banks of block RAM rounded down",
        "hw/cost.py",
        "banks = ceil(words / depth)",
        "banks = max(1, words // depth)",
        "tests/sw/test_cost.py::test_block_rams_follow_the_devices_modes",
    ),
    # --- link ---
    Mutation(
        "UART: samples at the edge of a bit",
        "hw/link/uart.py",
        "timer.eq((self.divisor - 1) // 2)",
        "timer.eq(self.divisor - 1)",
        _UART + "TestUART::test_bears_a_host_that_is_off_its_rate",
    ),
    Mutation(
        "UART receiver: the timer is seen a cycle late",
        "hw/link/uart.py",
        "due.eq(timer == 1)",
        "due.eq(timer == 0)",
        _UART + "TestUART::test_bears_a_host_that_is_off_its_rate",
    ),
    Mutation(
        "UART: bit a cycle too long",
        "hw/link/uart.py",
        "[timer.eq(self.divisor - 1), bits.eq(bits - 1)]",
        "[timer.eq(self.divisor), bits.eq(bits - 1)]",
        _UART + "TestUART::test_passes_every_byte_at_every_divisor",
    ),
    Mutation(
        "UART: stop bit not looked at",
        "hw/link/uart.py",
        "with m.Elif(rx):\n                        with m.If(~self.o.valid",
        "with m.Elif(1):\n                        with m.If(~self.o.valid",
        _UART + "TestUART::test_drops_a_byte_whose_stop_bit_is_low_and_takes_the_next_one",
    ),
    Mutation(
        "UART: most significant bit first",
        "hw/link/uart.py",
        "word.eq(Cat(0, self.i.payload))",
        "word.eq(Cat(0, self.i.payload[::-1]))",
        _UART + "TestUART::test_passes_every_byte_at_every_divisor",
    ),
    Mutation(
        "UART: the line is low after reset",
        "hw/link/uart.py",
        "word = Signal(BITS_PER_BYTE - 1, init=-1)",
        "word = Signal(BITS_PER_BYTE - 1)",
        _UART + "TestUARTTransmitter::test_keeps_the_line_high_from_the_first_cycle_on",
    ),
    Mutation(
        "COBS decoder: the zero behind a full piece",
        "hw/link/cobs.py",
        "zero.eq(self.i.payload != _LONGEST)",
        "zero.eq(1)",
        _COBS + "TestCobsDecoder::test_gives_packets_longer_than_a_piece",
    ),
    Mutation(
        "COBS decoder: a delimiter does not end the piece",
        "hw/link/cobs.py",
        "code.eq(delimiter | (Mux(code, self.i.payload, left) == 1))",
        "code.eq(Mux(code, self.i.payload, left) == 1)",
        _COBS + "TestCobsDecoder::test_starts_afresh_behind_every_delimiter",
    ),
    Mutation(
        "COBS encoder: full piece without its code byte",
        "hw/link/cobs.py",
        "                    with m.If(code != _LONGEST):\n",
        "                    with m.If(1):\n",
        _COBS + "TestReverseCobsEncoder::test_gives_what_the_host_decodes",
    ),
    Mutation(
        "slots: bits of a byte from the top",
        "hw/link/frame_slots.py",
        "beat.eq(Cat(beat[1:], byte.bit_select(bit, 1)))",
        "beat.eq(Cat(beat[1:], byte.bit_select(bit ^ 7, 1)))",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "slots: full a frame too late",
        "hw/link/frame_slots.py",
        "self.full.eq(self.held == p.credits)",
        "self.full.eq(0)",
        _HOST
        + "TestCredits::test_frames_beyond_them_are_answered_overrun_and_never_reach_the_core",
    ),
    Mutation(
        "slots: a beat is given before all of its lanes are there",
        "hw/link/frame_slots.py",
        "completing.eq(lane == p.i_lanes - 2)",
        "completing.eq(lane == max(0, p.i_lanes - 3))",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "slots: the memory goes on while a byte waits",
        "hw/link/frame_slots.py",
        "advance.eq(~kept | moving)",
        "advance.eq(1)",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "slots: a frame follows that was not committed",
        "hw/link/frame_slots.py",
        "some.eq(Mux(fetch & ending, reading + 1, reading)",
        "some.eq(Mux(fetch & ending, reading, reading)",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "receiver: check value from the bits in reverse",
        "hw/link/host_link.py",
        "crc.bit.eq(self.i.payload.data.bit_select(bit, 1)),",
        "crc.bit.eq(self.i.payload.data[::-1].bit_select(bit, 1)),",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "check value: another polynomial of 32 bits",
        "hw/link/crc.py",
        "_POLYNOMIAL = 0xEDB88320",
        "_POLYNOMIAL = 0x82F63B78",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "receiver: check value not looked at",
        "hw/link/host_link.py",
        "whole.eq(crc.match & self.i.payload.whole)",
        "whole.eq(self.i.payload.whole)",
        _HOST + "TestDamage::test_a_corrupted_byte_costs_its_frame_only",
    ),
    Mutation(
        "receiver: a cut piece counts as whole",
        "hw/link/host_link.py",
        "whole.eq(crc.match & self.i.payload.whole)",
        "whole.eq(crc.match)",
        _HOST + "TestDamage::test_a_last_piece_cut_short_is_damage_though_the_check_value_is_right",
    ),
    Mutation(
        "receiver: counter of a long packet overflows",
        "hw/link/host_link.py",
        "with m.Elif(byte & (count != longest + CRC_BYTES + 1)):",
        "with m.Elif(byte):",
        _HOST + "TestDamage::test_a_whole_packet_of_wrong_length_is_refused_with_its_number",
    ),
    Mutation(
        "receiver: a frame that was blocked half-way is taken",
        "hw/link/host_link.py",
        "m.d.sync += blocked.eq(1)",
        "m.d.sync += blocked.eq(0)",
        _CREDITS + "test_a_frame_that_began_before_a_slot_was_free_is_refused_whole",
    ),
    Mutation(
        "sender: scores are not sign-extended",
        "hw/link/host_link.py",
        "m.d.comb += [scores[lane].eq(self.i.payload.scores[lane]) for",
        "m.d.comb += [scores[lane].eq(self.i.payload.scores[lane].as_unsigned()) for",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "receiver: segments are taken whatever their number",
        "hw/link/host_link.py",
        "ordered.eq(sequence == self.expected)",
        "ordered.eq(sequence != self.expected + 77)",
        _HOST + "TestSegments::test_again_and_out_of_order_are_refused_and_change_nothing",
    ),
    Mutation(
        "receiver: a packet is judged before it is compared",
        "hw/link/host_link.py",
        "judged.eq(compared & ~end)",
        "judged.eq(ended & ~judged)",
        _HOST + "TestSegments::test_again_and_out_of_order_are_refused_and_change_nothing",
    ),
    Mutation(
        "receiver: to identify keeps a frame that was begun",
        "hw/link/host_link.py",
        "place.eq(Mux(identify | last, 0, place + 1)),",
        "place.eq(Mux(identify, place, Mux(last, 0, place + 1))),",
        _HOST + "TestSegments::test_to_identify_drops_a_frame_that_was_begun",
    ),
    Mutation(
        "receiver: segments are taken after a reset that the host has not seen",
        "hw/link/host_link.py",
        "with m.Elif(~identify & ~greeted):",
        "with m.Elif(0):",
        _HOST + "TestSegments::test_are_refused_before_the_host_has_said_hello",
    ),
    Mutation(
        "receiver: all segments count as long ones",
        "hw/link/host_link.py",
        "length = Mux(last, p.last_segment_bytes, p.segment_bytes)",
        "length = Mux(last, p.segment_bytes, p.segment_bytes)",
        _HOST + "TestSegments::test_of_another_length_are_refused_by_their_place",
    ),
    Mutation(
        "sender: a status tells the wrong count",
        "hw/link/host_link.py",
        "status = [self.answer.payload.code, self.expected, self.oldest, self.held]",
        "status = [self.answer.payload.code, self.oldest, self.expected, self.held]",
        _HOST + "TestSegments::test_a_status_tells_what_is_known",
    ),
    Mutation(
        "slots: frames are counted no further than there are slots",
        "hw/link/frame_slots.py",
        "self.oldest.eq(answering),",
        "self.oldest.eq(answering[:slot_bits]),",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "sender: the check value's first byte is sent again and again",
        "hw/link/host_link.py",
        "m.d.comb += [crc.drain.eq(index != 0), last",
        "m.d.comb += [crc.drain.eq(0), last",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "sender: a result's beat is lost",
        "hw/link/host_link.py",
        "                    with m.Else():\n                        m.d.sync += taken.eq(1)\n",
        "                    with m.If(~result | ~self.i.payload.last):\n"
        "                        m.d.sync += taken.eq(1)\n"
        '                        m.next = "CLASS"\n',
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "sender: a byte is put on one that waits",
        "hw/link/host_link.py",
        "free.eq(~self.o.valid & passed & ~(free & offered))",
        "free.eq(~self.o.valid & passed)",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    Mutation(
        "protocol: a frame's last bits have no byte",
        "hw/link/protocol.py",
        "return -(-self.i_bits // 8)",
        "return max(1, self.i_bits // 8)",
        _HOST + "TestFrames::test_go_to_the_core_and_their_results_come_back",
    ),
    # --- top level of the boards ---
    Mutation(
        "top: reset is over at once",
        "boards/top.py",
        "with m.If(timer == cycles):",
        "with m.If(1):",
        _TOP + "test_reset_is_held_for_the_time_that_block_ram_needs",
    ),
    Mutation(
        "top: reset has the wrong sense",
        "boards/top.py",
        "waiting.eq(~ready)",
        "waiting.eq(ready)",
        _TOP + "test_bits_go_from_the_rx_pin_through_link_and_core_to_the_tx_pin",
    ),
    Mutation(
        "top: tx is an echo of rx",
        "boards/top.py",
        "tx.o.eq(link.tx)",
        "tx.o.eq(rx.i)",
        _TOP + "test_bits_go_from_the_rx_pin_through_link_and_core_to_the_tx_pin",
    ),
    Mutation(
        "top: PLL's feedback divider one off",
        "boards/top.py",
        'p_DIVF=Const(divider["DIVF"], 7)',
        'p_DIVF=Const(divider["DIVF"] + 1, 7)',
        _TOP + "test_pll_is_instantiated_with_the_setting",
    ),
    # --- netlists, between yosys and nextpnr ---
    Mutation(
        "chains: a chain whose first sum is read loses its carry",
        "boards/chains.py",
        'return not propagates and not reading[pins["S0"][0]]',
        "return not propagates",
        _CHAINS + "test_a_chain_whose_sum_or_carry_depends_on_the_one_before_stays_as_it_is",
    ),
    Mutation(
        "equal inputs: a freed input counts as 0",
        "boards/equal_inputs.py",
        "| (index >> first & 1) << place]",
        "]",
        _EQUAL_INPUTS + "test_every_lut_computes_what_it_did",
    ),
    Mutation(
        "equal inputs: a carry that begins with a bit is never 1",
        "boards/equal_inputs.py",
        'pins["CI"], pins["I1"] = ["1"], ["0"]',
        'pins["I1"] = ["0"]',
        _EQUAL_INPUTS + "test_a_carry_that_begins_with_a_bit_takes_it_once",
    ),
    Mutation(
        "equal inputs: the carry does not get the copy",
        "boards/equal_inputs.py",
        'pins["I2"] = carry["connections"]["I1"] = [free]',
        'pins["I2"] = [free]',
        _EQUAL_INPUTS + "test_a_chain_that_goes_on_with_a_bit_takes_it_from_two_flip_flops",
    ),
    Mutation(
        "fanout: copies of one cell share a net",
        "boards/fanout.py",
        "            free += 1",
        "        free += 1",
        _FANOUT + "test_each_copy_drives_no_more_than_that",
    ),
    Mutation(
        "fanout: resets are copied",
        "boards/fanout.py",
        "        else:\n            continue\n",
        "        else:\n            shares = _parts(driven, most)[1:]\n",
        _FANOUT + "test_resets_are_left_alone",
    ),
    Mutation(
        "fanout: a component's LUTs have copies all over the place",
        "boards/fanout.py",
        "driven if pin[1] not in alone), key=_component)",
        "driven if pin[1] not in alone), key=lambda pin: pin[0])",
        _FANOUT + "test_a_flip_flop_keeps_the_enables_and_each_component_gets_a_copy_for_its_luts",
    ),
    Mutation(
        "output registers: what else reads the memory reads nothing",
        "boards/output_registers.py",
        "if len(reading[bit]) > 1 or name is None:",
        "if name is None:",
        _OUTPUT_REGISTERS + "test_anything_else_stays",
    ),
    Mutation(
        "output registers: an inverted enable is not inverted at the pin",
        "boards/output_registers.py",
        'pin if high else "INV"',
        "pin",
        _OUTPUT_REGISTERS + "test_an_inverted_enable_is_inverted_at_the_pins",
    ),
    Mutation(
        "output registers: a memory has a second register",
        "boards/output_registers.py",
        'if taken or pins.get(f"RST{port}", ["0"]) != ["0"]:',
        'if pins.get(f"RST{port}", ["0"]) != ["0"]:',
        _OUTPUT_REGISTERS + "test_a_port_has_one_register_and_no_second",
    ),
    # --- what proofs catch ---
    Mutation(
        "skid buffer: valid waits for ready",
        "hw/skid.py",
        "self.o.valid.eq(full | self.i.valid)",
        "self.o.valid.eq((full | self.i.valid) & self.o.ready)",
        _PROOFS + "[skid]",
    ),
    Mutation(
        "width converter: the last part of a beat first",
        "hw/width_converter.py",
        "self.o.payload.eq(word.as_value()[:width])",
        "self.o.payload.eq(word.as_value()[-width:])",
        _PROOFS + "[converter-i_lanes=4,o_lanes=1]",
    ),
    Mutation(
        "width converter is not ready while it is empty",
        "hw/width_converter.py",
        "step = ~some | self.o.ready",
        "step = some & self.o.ready",
        _PROOFS + "[converter-i_lanes=4,o_lanes=1]",
    ),
    Mutation(
        "replay buffer wakes up with a word that never came",
        "hw/replay_buffer.py",
        "some = Signal(init=init > 0,",
        "some = Signal(init=1,",
        _PROOFS + "[replay-length=2,times=2]",
    ),
    Mutation(
        "score unit: offsets move on while the enable is low",
        "hw/score.py",
        'bias = delay(m, bias, 1, self.en, "bias")',
        'bias = delay(m, bias, 1, Signal(init=1), "bias")',
        _PROOFS_OF_NUMBERS + "test_a_score_unit_gives_the_affine_of_its_fold",
    ),
    Mutation(
        "threshold unit: thresholds one too high",
        "hw/threshold.py",
        "reached = [count[p] >= threshold[p] for p in range(self.pe)]",
        "reached = [count[p] > threshold[p] for p in range(self.pe)]",
        _PROOFS_OF_NUMBERS + "test_a_threshold_unit_compares_with_its_folds_thresholds",
    ),
)
