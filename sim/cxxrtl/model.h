// The model that write_cxxrtl made, and what all its drivers do with it.

#pragma once

#include "design.cc"

#include <cstddef>

// Ports are `value` or, where a register drives one, `wire`.
template <size_t Bits> const cxxrtl::value<Bits> &current(const cxxrtl::value<Bits> &port) { return port; }
template <size_t Bits> const cxxrtl::value<Bits> &current(const cxxrtl::wire<Bits> &port) { return port.curr; }

// A cycle of `clk`: `observe` sees the outputs that the rising edge ends, `sample` both halves.
template <class Observe, class Sample>
void clock_cycle(cxxrtl_design::p_top &top, Observe observe, Sample sample) {
#if defined(XNORFLOW_SINGLE_PASS) && !defined(XNORFLOW_VCD)
    // A rising edge: the outputs are those before it until the model commits.
    (void)sample;
    top.prev_p_clk.set<bool>(false);
    top.p_clk.set<bool>(true);
    top.eval();
    observe();
    top.commit();
#else
    top.p_clk.set<bool>(false);
    top.step();
    observe();
    sample(0);
    top.p_clk.set<bool>(true);
    top.step();
    sample(1);
#endif
}
