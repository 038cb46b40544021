// Drives a board's pins: its oscillator, and a serial line of its own on rx and tx.

#include "model.h"

#include <cstdint>
#include <deque>
#include <vector>

namespace {

// 8 data bits, least significant first, no parity, one stop bit. Time is counted in units of which a
// clock cycle takes `baud` and a bit takes `clock`: bits have their exact length, whatever the ratio.
struct Board {
    cxxrtl_design::p_top top;
    uint64_t cycle = 0, time = 0, clock, baud;

    std::deque<uint8_t> outgoing;
    uint32_t word = 0; // bits still to be put on rx, the next one lowest
    int left = 0;      // how many
    uint64_t edge = 0; // when the next one begins
    bool rx = true;

    std::vector<uint8_t> incoming;
    uint32_t taken = 0;
    int samples = 0;     // bits of tx still to be sampled
    uint64_t middle = 0; // when
    bool was = true;

    uint64_t quiet = 0;      // cycles since something was on the line
    uint64_t bad_stops = 0;  // bytes from the board that did not end high
    uint64_t lamp_edges = 0; // times that the lamp changed
    bool lamp = false;

    void drive() {
        if (left == 0 && !outgoing.empty() && time >= edge) {
            word = 0x200 | outgoing.front() << 1; // start bit, data, stop bit
            outgoing.pop_front();
            left = 10;
            edge = time;
        }
        // A byte that follows at once starts at the fraction of a cycle at which the last one ended.
        while (left != 0 && time >= edge) {
            rx = word & 1;
            word >>= 1;
            edge += clock;
            if (--left == 0 && !outgoing.empty()) {
                word = 0x200 | outgoing.front() << 1;
                outgoing.pop_front();
                left = 10;
            }
        }
        if (left != 0 || time < edge)
            quiet = 0;
    }

    void listen(bool tx) {
        if (samples == 0 && was && !tx) {
            samples = 10;
            middle = time + clock / 2;
            taken = 0;
        }
        if (samples != 0 && time >= middle) {
            taken |= uint32_t(tx) << (10 - samples);
            middle += clock;
            if (--samples == 0) {
                if (taken >> 9 & 1)
                    incoming.push_back(taken >> 1);
                else
                    bad_stops++;
            }
        }
        if (samples != 0)
            quiet = 0;
        was = tx;
    }

    void observe() {
        listen(bool(current(top.p_tx)));
#ifdef XNORFLOW_LED
        if (bool(current(top.p_led)) != lamp) {
            lamp = !lamp;
            lamp_edges++;
        }
#endif
    }

    void step() {
        quiet++;
        drive();
        top.p_rx.set<bool>(rx);
        clock_cycle(top, [this] { observe(); }, [](int) {});
        cycle++;
        time += baud;
    }
};

} // namespace

extern "C" {

Board *xnorflow_new(uint64_t clock, uint64_t baud) {
    auto *b = new Board;
    b->clock = clock;
    b->baud = baud;
    return b;
}

void xnorflow_delete(Board *b) { delete b; }

void xnorflow_send(Board *b, const uint8_t *bytes, uint64_t count) {
    b->outgoing.insert(b->outgoing.end(), bytes, bytes + count);
}

// Run for so many cycles, or until the line has been quiet for `patience`, or `bytes` have come.
void xnorflow_run(Board *b, uint64_t cycles, uint64_t patience, uint64_t bytes) {
    for (uint64_t end = b->cycle + cycles;
         b->cycle < end && (b->quiet < patience || !b->outgoing.empty()) && b->incoming.size() < bytes;)
        b->step();
}

uint64_t xnorflow_cycle(const Board *b) { return b->cycle; }
uint64_t xnorflow_quiet(const Board *b) { return b->quiet; }
uint64_t xnorflow_unsent(const Board *b) { return b->outgoing.size(); }
uint64_t xnorflow_bad_stops(const Board *b) { return b->bad_stops; }
uint64_t xnorflow_lamp_edges(const Board *b) { return b->lamp_edges; }
uint64_t xnorflow_size(const Board *b) { return b->incoming.size(); }
const uint8_t *xnorflow_incoming(const Board *b) { return b->incoming.data(); }
void xnorflow_take(Board *b, uint64_t count) {
    b->incoming.erase(b->incoming.begin(), b->incoming.begin() + count);
}
}
