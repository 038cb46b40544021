// Drives a core's wrapper: frames in, results out, with random stalls on both streams.

#include "model.h"

#include <cstdint>
#include <cstring>
#include <vector>
#ifdef XNORFLOW_VCD
#include <cxxrtl/cxxrtl_vcd.h>
#include <fstream>
#endif

namespace {

template <size_t Bits> constexpr size_t bytes(const cxxrtl::value<Bits> &) { return (Bits + 7) / 8; }

// The least significant byte comes first, in memory and in CXXRTL's chunks of 32 bits.
template <size_t Bits> void load(cxxrtl::value<Bits> &port, const uint8_t *from) {
    for (size_t chunk = 0; chunk < cxxrtl::value<Bits>::chunks; chunk++) {
        uint32_t word = 0;
        for (size_t byte = 4 * chunk; byte < (Bits + 7) / 8 && byte < 4 * chunk + 4; byte++)
            word |= uint32_t(from[byte]) << 8 * (byte - 4 * chunk);
        port.data[chunk] = word;
    }
}

template <size_t Bits> void append(std::vector<uint8_t> &to, const cxxrtl::value<Bits> &port) {
    for (size_t byte = 0; byte < (Bits + 7) / 8; byte++)
        to.push_back(port.data[byte / 4] >> 8 * (byte % 4));
}

// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random {
    uint64_t state;
    // True with probability `limit` / 2**64.
    bool below(uint64_t limit) {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return (z ^ (z >> 31)) < limit;
    }
};

struct Simulation {
    cxxrtl_design::p_top top;
    std::vector<uint8_t> input;
    size_t next = 0, count = 0; // beats given, beats there are
    bool offered = false, asked = false;
    uint64_t stall = 0, cycle = 0, first = 0, quiet = 0;
    Random source{0}, sink{0};
    std::vector<uint8_t> output;
    std::vector<uint64_t> cycles; // in which each output beat left
    std::vector<std::vector<uint8_t>> taps;
#ifdef XNORFLOW_VCD
    cxxrtl::debug_items items;
    cxxrtl::vcd_writer vcd;
    std::ofstream waveforms;
#endif

    void sample(uint64_t time) {
#ifdef XNORFLOW_VCD
        vcd.sample(time);
        waveforms << vcd.buffer;
        vcd.buffer.clear();
#else
        (void)time;
#endif
    }

    // What every watched stage sends on in this cycle.
    template <size_t Fire, size_t Bits>
    void tap(size_t number, const cxxrtl::value<Fire> &fire, const cxxrtl::value<Bits> &payload) {
        if (fire)
            append(taps[number], payload);
    }

    void step() {
        // A beat that is offered stays until it is taken; so does the wish for one.
        if (!offered && next < count && !source.below(stall)) {
            load(top.p_i__payload, &input[next * bytes(top.p_i__payload)]);
            offered = true;
        }
        if (!asked)
            asked = !sink.below(stall);
        top.p_i__valid.set<bool>(offered);
        top.p_o__ready.set<bool>(asked);
        clock_cycle(top, [this] { observe(); }, [this](int half) { sample(10 * cycle + 5 * half); });
        cycle++;
    }

    void observe() {
        if (offered && current(top.p_i__ready)) {
            if (next++ == 0)
                first = cycle;
            offered = false;
        }
        quiet++;
        if (asked && current(top.p_o__valid)) {
            append(output, current(top.p_o__payload));
            cycles.push_back(cycle);
            asked = false;
            quiet = 0;
        }
#define TAP(number) tap(number, current(top.p_tap__##number##__fire), current(top.p_tap__##number##__payload));
        XNORFLOW_TAPS
#undef TAP
    }
};

} // namespace

extern "C" {

Simulation *xnorflow_new(const uint8_t *input, uint64_t beats, uint64_t stall, uint64_t i_seed,
                         uint64_t o_seed, uint64_t taps, const char *vcd) {
    auto *s = new Simulation;
    s->input.assign(input, input + beats * bytes(s->top.p_i__payload));
    s->count = beats;
    s->stall = stall;
    s->source.state = i_seed;
    s->sink.state = o_seed;
    s->taps.resize(taps);
    s->top.p_rst.set<bool>(false);
#ifdef XNORFLOW_VCD
    s->top.debug_info(&s->items, nullptr, "");
    s->vcd.timescale(1, "ns");
    s->vcd.add_without_memories(s->items);
    s->waveforms.open(vcd);
#else
    (void)vcd;
#endif
    return s;
}

void xnorflow_delete(Simulation *s) { delete s; }

// Run until `beats` have come out in all, or for so many cycles, or until none has come for `patience`.
uint64_t xnorflow_run(Simulation *s, uint64_t beats, uint64_t cycles, uint64_t patience) {
    for (uint64_t end = s->cycle + cycles;
         s->cycles.size() < beats && s->cycle < end && s->quiet < patience;)
        s->step();
    return s->cycles.size();
}

uint64_t xnorflow_quiet(const Simulation *s) { return s->quiet; }
uint64_t xnorflow_first(const Simulation *s) { return s->first; }
const uint64_t *xnorflow_cycles(const Simulation *s) { return s->cycles.data(); }
uint64_t xnorflow_output_size(const Simulation *s) { return s->output.size(); }
const uint8_t *xnorflow_output(const Simulation *s) { return s->output.data(); }
uint64_t xnorflow_tap_size(const Simulation *s, uint64_t number) { return s->taps[number].size(); }
const uint8_t *xnorflow_tap(const Simulation *s, uint64_t number) { return s->taps[number].data(); }
}
