"""C++ that is cut where nothing is torn."""

from xnorflow.sim.cxxrtl.parts import Model, cut

HEADER = """\
struct p_top : public module {
	wire<8> p_a;
	template<class ObserverT>
	bool commit(ObserverT &observer) {
		bool changed = false;
		if (p_a.commit(observer)) changed = true;
		if (p_b.commit(observer)) changed = true;
		return changed;
	}
};
"""

SOURCE = """\
void p_top::reset() {
	p_a = wire<8>{0u};
	static const value<8> mem_init_1[2] {
		value<8>{0x00u}, value<8>{0x01u},
	};
	std::copy(std::begin(mem_init_1), std::end(mem_init_1), &memory.data[0]);
	p_b = wire<8>{0u};
}

bool p_top::eval(performer *performer) {
	bool converged = true;
	bool posedge_p_clk = this->posedge_p_clk();
	// \\hdlname: here
	value<8> here;
	value<8> everywhere;
	value<8> nowhere;
	here = p_a.curr;
	auto tmp_0 = memory_index(p_a.curr, 0, 2);
	everywhere = tmp_0.valid ? memory[tmp_0.index] : value<8>{0u};
	if (posedge_p_clk) {
		p_a.next = everywhere;
	} else {
		p_b.next = everywhere;
	}
	return converged;
}
"""


def functions(text):
    """Return the bodies of functions by name."""
    return {
        piece.partition("(")[0].rpartition("::")[2]: piece.partition("{\n")[2]
        for piece in ("void " + text).split("void ")
        if "(" in piece.partition("\n")[0]
    }


def test_a_small_model_stays_as_it_is():
    model = Model(HEADER, SOURCE)
    assert cut(model) is model


def test_statements_are_not_torn_and_memories_keep_their_index():
    model = cut(Model(HEADER, SOURCE), 1, 1)
    bodies = functions("".join(model.parts))
    assert [body for name, body in bodies.items() if "mem_init_1[2]" in body] == [
        body for name, body in bodies.items() if "&memory.data" in body
    ]
    [reading] = [body for body in bodies.values() if "auto tmp_0" in body]
    assert "everywhere = tmp_0.valid" in reading
    [writing] = [body for body in bodies.values() if "p_a.next" in body]
    assert writing.startswith("\tif (posedge_p_clk) {\n")
    assert "} else {\n\t\tp_b.next = everywhere;\n\t}\n" in writing


def test_a_wire_is_declared_where_it_is_used():
    model = cut(Model(HEADER, SOURCE), 1, 1)
    [first] = [text for text in model.parts if "here = p_a.curr" in text]
    assert "\tvalue<8> here;\n\there = p_a.curr;\n" in first
    assert model.header.count("\tvalue<8> everywhere;\n") == 1
    assert "everywhere;" not in "".join(
        line for text in model.parts for line in text.splitlines() if "value<8> every" in line
    )
    assert "nowhere" not in model.header + "".join(model.parts)


def test_everything_is_called_once_and_in_order():
    model = cut(Model(HEADER, SOURCE), 1, 1)
    names = list(functions("".join(model.parts)))
    calls = [
        line.strip().partition("(")[0]
        for line in model.source.splitlines()
        if line.startswith(("\treset_", "\teval_"))
    ]
    assert calls == names
    assert len(calls) == 3 + 3
    assert model.header.count("if (commit_0(observer)) changed = true;") == 1
    assert model.header.count("if (commit_1(observer)) changed = true;") == 1
    for name in names:
        assert model.header.count(f"\tvoid {name}(") == 1
    assert model.source.count("return converged;") == 1
