"""Board files: what ships is true to the platforms, what is wrong is refused with its mend."""

import dataclasses
import re
from importlib import resources

import pytest
from amaranth.build import Subsignal

from xnorflow import boards
from xnorflow.boards.pll import solve
from xnorflow.errors import UserError

BOARDS = ["ice40-hx8k", "icebreaker", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f"]
ICEBREAKER = (resources.files("xnorflow.boards") / "icebreaker.toml").read_text()


def test_the_planned_boards_ship() -> None:
    assert boards.names() == BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_board_agrees_with_its_platform(name: str) -> None:
    board = boards.load(name)
    platform = board.make_platform()
    assert board.name == name
    assert platform.device == board.device
    assert platform.package.lower() == board.package.lower()
    assert platform.default_clk_frequency == board.clock.oscillator_mhz * 1e6
    assert board.link is not None
    assert board.led is not None
    uart = platform.lookup(*board.link.resource)
    assert {"rx", "tx"} <= {part.name for part in uart.ios if isinstance(part, Subsignal)}
    platform.lookup(*board.led.resource)
    assert "{bitstream}" in board.info.program


@pytest.mark.parametrize("name", BOARDS)
def test_planned_clock_can_be_made_exactly(name: str) -> None:
    board = boards.load(name)
    assert solve(board, board.clock.planned_mhz).mhz == board.clock.planned_mhz


@pytest.mark.parametrize("name", BOARDS)
def test_default_baud_is_a_divisor_of_the_planned_clock(name: str) -> None:
    board = boards.load(name)
    assert board.link is not None
    assert (board.clock.planned_mhz * 1e6) % board.link.baud == 0


@pytest.mark.parametrize("name", BOARDS)
def test_static_power_has_a_source(name: str) -> None:
    power = boards.load(name).power
    assert power is not None
    assert power.static_mw > 0
    assert "Lattice" in power.source or "ice40_power" in power.source


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("static_mw = -1", "power.static_mw must be a positive number of mW"),
        ('static_mw = "low"', "power.static_mw must be of type float"),
        ("", "lacks power.static_mw"),
        ('static_mw = 1\nsource = " "', "power.source must name the document"),
        ("static_mw = 1\nmax_mw = 2", "unknown key power.max_mw"),
    ],
)
def test_wrong_power_is_refused(tmp_path, line: str, message: str) -> None:
    source = "" if "source" in line else '\nsource = "sheet"'
    text = re.sub(r"static_mw = .*\nsource = .*", lambda _: line + source, ICEBREAKER)
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        boards.load(tmp_path / "own.toml")


def test_a_board_without_power_is_a_board(tmp_path) -> None:
    text = re.sub(r"\[power\]\nstatic_mw = .*\nsource = .*", "", ICEBREAKER)
    (tmp_path / "own.toml").write_text(text)
    assert boards.load(tmp_path / "own.toml").power is None


def test_a_board_cannot_be_changed() -> None:
    board = boards.load("icebreaker")
    with pytest.raises(dataclasses.FrozenInstanceError):
        board.budget.bram = 31  # type: ignore[misc]  # the claim is that this fails


def test_unknown_board_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match=r"did you mean ulx3s-85f\?.*icebreaker, ulx3s-12f"):
        boards.load("ULX3S-85")


def test_board_without_a_near_name_lists_all() -> None:
    with pytest.raises(UserError, match=r"no board 'zzz'; give one of ice40-hx8k, icebreaker"):
        boards.load("zzz")


def test_board_of_the_users_is_read_from_its_file(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(ICEBREAKER.replace('name = "icebreaker"', 'name = "mine"'))
    mine = boards.load(file)
    assert boards.load(str(file)) == mine
    assert mine == dataclasses.replace(boards.load("icebreaker"), name="mine")


def test_pll_link_led_and_info_may_be_absent(tmp_path) -> None:
    file = tmp_path / "bare.toml"
    file.write_text(re.sub(r"(?ms)^\[(pll|link|led|info)\].*?(?=^\[|\Z)", "", ICEBREAKER))
    bare = boards.load(str(file))
    assert (bare.pll, bare.link, bare.led) == (None, None, None)
    assert solve(bare, 100).frequency == 12


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('device = "iCE40UP5K"\n', "", "lacks device; add it"),
        ("bram = 30\n", "", r"lacks budget\.bram; add it"),
        ("bram = 30", "brams = 30", r"unknown key budget\.brams; did you mean budget\.bram\?"),
        ("bram = 30", "bram = 30.5", r"budget\.bram must be of type int, not 30\.5"),
        ("bram = 30", "bram = true", r"budget\.bram must be of type int, not True"),
        ("bram = 30", "bram = -1", r"budget\.bram must be at least 0, not -1"),
        ("lut = 5280", "lut = 0", r"budget\.lut must be at least 1, not 0"),
        ('"icebreaker"', '"../icebreaker"', "name must be letters, digits"),
        ('"ice40"', '"ice41"', r"family must be one of ice40, ecp5, not 'ice41'"),
        ("SB_PLL40_PAD", "EHXPLLL", r"pll\.kind must be one of SB_PLL40_PAD, SB_PLL40_CORE"),
        ("[533.0, 1066.0]", "[1066.0, 533.0]", r"pll\.vco_mhz must be \[least, greatest\]"),
        ("[533.0, 1066.0]", "[533.0]", r"pll\.vco_mhz must be \[float, float\], not"),
        ("planned_mhz = 24.0", "planned_mhz = 0", r"clock\.planned_mhz must be a positive"),
        ("planned_mhz = 24.0", "planned_mhz = nan", r"clock\.planned_mhz must be a positive"),
        ('["uart", 0]', '["uart", "0"]', r"link\.resource must be of type int"),
        ("baud = 1_000_000", "baud = 0", r"link\.baud must be positive"),
        ("[clock]", "[[clock]]", "clock must be a table"),
        ("[clock]", "[clock", "is not valid TOML"),
    ],
)
def test_wrong_file_is_refused_with_the_key_and_the_mend(tmp_path, old, new, complaint) -> None:
    assert old in ICEBREAKER
    file = tmp_path / "wrong.toml"
    file.write_text(ICEBREAKER.replace(old, new))
    with pytest.raises(UserError, match=rf"wrong\.toml.*{complaint}"):
        boards.load(str(file))


def test_missing_and_binary_files_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.toml cannot be read"):
        boards.load(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"binary\.toml cannot be read"):
        boards.load(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    ("platform", "complaint"),
    [
        ("amaranth_boards.none:X", "cannot be imported"),
        ("amaranth_boards.icebreaker:X", "cannot be imported"),
        ("", "cannot be imported"),
        ("amaranth_boards.icebreaker:os", "is not an Amaranth platform class"),
        ("amaranth_boards.ulx3s:ULX3S_25F_Platform", "is iCE40UP5K but .* is for LFE5U-25F"),
    ],
)
def test_wrong_platform_is_refused(platform: str, complaint: str) -> None:
    board = dataclasses.replace(boards.load("icebreaker"), platform=platform)
    with pytest.raises(UserError, match=complaint):
        board.make_platform()
