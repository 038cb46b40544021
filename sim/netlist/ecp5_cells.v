// Simulation models of the ECP5 cells that yosys has no models of, for what it makes of our designs.
// Any other use names a port, a parameter or a module that does not exist, which yosys reports.

// Block RAM, from Lattice's ECP5 Memory Usage Guide (FPGA-TN-02204): 1,024 words of 18 bits, each two
// bytes of nine. Ports are 1, 2, 4, 9, 18 or (one writing, one reading) 36 bits wide; those of less
// than 9 bits leave every ninth bit alone. A port that writes keeps its output (write mode NORMAL) or
// gives what was there before (READBEFOREWRITE); so does one that reads what the other port writes. A
// register behind the output (OUTREG) has an enable of its own. Reset clears outputs only.

module DP16KD (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18;
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG";
    parameter REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000";
    parameter CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL";
    parameter WRITEMODE_B = "NORMAL";
    parameter CEAMUX = "CEA";
    parameter CEBMUX = "CEB";
    parameter OCEAMUX = "OCEA";
    parameter OCEBMUX = "OCEB";
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter GSR = "ENABLED";
    parameter INIT_DATA = "STATIC";
    parameter INITVAL_00 = 320'h0;
    parameter INITVAL_01 = 320'h0;
    parameter INITVAL_02 = 320'h0;
    parameter INITVAL_03 = 320'h0;
    parameter INITVAL_04 = 320'h0;
    parameter INITVAL_05 = 320'h0;
    parameter INITVAL_06 = 320'h0;
    parameter INITVAL_07 = 320'h0;
    parameter INITVAL_08 = 320'h0;
    parameter INITVAL_09 = 320'h0;
    parameter INITVAL_0A = 320'h0;
    parameter INITVAL_0B = 320'h0;
    parameter INITVAL_0C = 320'h0;
    parameter INITVAL_0D = 320'h0;
    parameter INITVAL_0E = 320'h0;
    parameter INITVAL_0F = 320'h0;
    parameter INITVAL_10 = 320'h0;
    parameter INITVAL_11 = 320'h0;
    parameter INITVAL_12 = 320'h0;
    parameter INITVAL_13 = 320'h0;
    parameter INITVAL_14 = 320'h0;
    parameter INITVAL_15 = 320'h0;
    parameter INITVAL_16 = 320'h0;
    parameter INITVAL_17 = 320'h0;
    parameter INITVAL_18 = 320'h0;
    parameter INITVAL_19 = 320'h0;
    parameter INITVAL_1A = 320'h0;
    parameter INITVAL_1B = 320'h0;
    parameter INITVAL_1C = 320'h0;
    parameter INITVAL_1D = 320'h0;
    parameter INITVAL_1E = 320'h0;
    parameter INITVAL_1F = 320'h0;
    parameter INITVAL_20 = 320'h0;
    parameter INITVAL_21 = 320'h0;
    parameter INITVAL_22 = 320'h0;
    parameter INITVAL_23 = 320'h0;
    parameter INITVAL_24 = 320'h0;
    parameter INITVAL_25 = 320'h0;
    parameter INITVAL_26 = 320'h0;
    parameter INITVAL_27 = 320'h0;
    parameter INITVAL_28 = 320'h0;
    parameter INITVAL_29 = 320'h0;
    parameter INITVAL_2A = 320'h0;
    parameter INITVAL_2B = 320'h0;
    parameter INITVAL_2C = 320'h0;
    parameter INITVAL_2D = 320'h0;
    parameter INITVAL_2E = 320'h0;
    parameter INITVAL_2F = 320'h0;
    parameter INITVAL_30 = 320'h0;
    parameter INITVAL_31 = 320'h0;
    parameter INITVAL_32 = 320'h0;
    parameter INITVAL_33 = 320'h0;
    parameter INITVAL_34 = 320'h0;
    parameter INITVAL_35 = 320'h0;
    parameter INITVAL_36 = 320'h0;
    parameter INITVAL_37 = 320'h0;
    parameter INITVAL_38 = 320'h0;
    parameter INITVAL_39 = 320'h0;
    parameter INITVAL_3A = 320'h0;
    parameter INITVAL_3B = 320'h0;
    parameter INITVAL_3C = 320'h0;
    parameter INITVAL_3D = 320'h0;
    parameter INITVAL_3E = 320'h0;
    parameter INITVAL_3F = 320'h0;
    localparam [20479:0] INITVAL = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
        INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
        INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
        INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
        INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
        INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
        INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
        INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
        INITVAL_00
    };

    wire [17:0] DIA = {
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0
    };
    wire [13:0] ADA = {
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
    };
    wire [17:0] DOA;
    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0
    } = DOA;
    wire [17:0] DIB = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0
    };
    wire [13:0] ADB = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
    };
    wire [17:0] DOB;
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
    } = DOB;

    generate
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000"
            || WRITEMODE_A == "WRITETHROUGH" || WRITEMODE_B == "WRITETHROUGH"
            || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
            || (DATA_WIDTH_A == 36 && (DATA_WIDTH_B < 18 || REGMODE_A != REGMODE_B)))
            dp16kd_mode_that_is_not_modelled missing ();
    endgenerate

    reg [17:0] words [0:1023];
    integer i;
    initial for (i = 0; i < 1024; i = i + 1)
        words[i] = INITVAL[20 * i +: 18];

    // Where a narrow port's bits lie in their word.
    function [4:0] place_a(input [3:0] low);
        place_a = DATA_WIDTH_A == 9 ? 9 * low[3] : DATA_WIDTH_A == 4 ? 9 * low[3] + 4 * low[2]
            : DATA_WIDTH_A == 2 ? 9 * low[3] + 2 * low[2:1] : 9 * low[3] + low[2:0];
    endfunction
    function [4:0] place_b(input [3:0] low);
        place_b = DATA_WIDTH_B == 9 ? 9 * low[3] : DATA_WIDTH_B == 4 ? 9 * low[3] + 4 * low[2]
            : DATA_WIDTH_B == 2 ? 9 * low[3] + 2 * low[2:1] : 9 * low[3] + low[2:0];
    endfunction

    wire en_a = CEA ^ (CEAMUX == "INV"), en_b = CEB ^ (CEBMUX == "INV");
    wire out_a = OCEA ^ (OCEAMUX == "INV"), out_b = OCEB ^ (OCEBMUX == "INV");
    wire write_a = en_a && WEA, write_b = en_b && WEB;
    wire [9:0] word_a = ADA[13:4], word_b = ADB[13:4];
    localparam ASYNC = RESETMODE == "ASYNC";
    localparam REG_A = REGMODE_A == "OUTREG", REG_B = REGMODE_B == "OUTREG";
    localparam [17:0] LANES_A = (1 << DATA_WIDTH_A) - 1, LANES_B = (1 << DATA_WIDTH_B) - 1;

    generate
        if (DATA_WIDTH_A == 36) begin : wide_write
            wire [35:0] d = {DIB, DIA};
            wire [35:0] m = {{9{ADA[3]}}, {9{ADA[2]}}, {9{ADA[1]}}, {9{ADA[0]}}};
            always @(posedge CLKA) if (write_a) begin : write
                integer k;
                for (k = 0; k < 18; k = k + 1) begin
                    if (m[k]) words[{ADA[13:5], 1'b0}][k] <= d[k];
                    if (m[k + 18]) words[{ADA[13:5], 1'b1}][k] <= d[k + 18];
                end
            end
        end else begin : write_at_a
            wire [17:0] m = DATA_WIDTH_A == 18 ? {{9{ADA[1]}}, {9{ADA[0]}}}
                : LANES_A << place_a(ADA[3:0]);
            wire [17:0] d = DATA_WIDTH_A == 18 ? DIA : DIA << place_a(ADA[3:0]);
            always @(posedge CLKA) if (write_a) begin : write
                integer k;
                for (k = 0; k < 18; k = k + 1)
                    if (m[k]) words[word_a][k] <= d[k];
            end
        end

        if (DATA_WIDTH_B == 36) begin : wide_read
            wire [35:0] d = {words[{ADB[13:5], 1'b1}], words[{ADB[13:5], 1'b0}]};
            dp16kd_output #(ASYNC, REG_B) low (CLKB, RSTB, en_b, out_b, d[17:0], DOA);
            dp16kd_output #(ASYNC, REG_B) high (CLKB, RSTB, en_b, out_b, d[35:18], DOB);
        end else begin : narrow
            if (DATA_WIDTH_A != 36) begin : read_at_a
                wire [17:0] d = DATA_WIDTH_A == 18 ? words[word_a]
                    : (words[word_a] >> place_a(ADA[3:0])) & LANES_A;
                dp16kd_output #(ASYNC, REG_A) q (
                    CLKA, RSTA, en_a && !(WEA && WRITEMODE_A == "NORMAL"), out_a, d, DOA
                );
            end else assign DOA = 0;

            wire [17:0] r = DATA_WIDTH_B == 18 ? words[word_b]
                : (words[word_b] >> place_b(ADB[3:0])) & LANES_B;
            dp16kd_output #(ASYNC, REG_B) q (
                CLKB, RSTB, en_b && !(WEB && WRITEMODE_B == "NORMAL"), out_b, r, DOB
            );
            wire [17:0] m = DATA_WIDTH_B == 18 ? {{9{ADB[1]}}, {9{ADB[0]}}}
                : LANES_B << place_b(ADB[3:0]);
            wire [17:0] d = DATA_WIDTH_B == 18 ? DIB : DIB << place_b(ADB[3:0]);
            always @(posedge CLKB) if (write_b) begin : write
                integer k;
                for (k = 0; k < 18; k = k + 1)
                    if (m[k]) words[word_b][k] <= d[k];
            end
        end
    endgenerate
endmodule

module dp16kd_output #(parameter ASYNC = 0, REGISTERED = 0) (
    input clk, rst, en, out_en, input [17:0] d, output [17:0] q
);
    reg [17:0] latch = 0, register = 0;
    assign q = REGISTERED ? register : latch;
    generate
        if (ASYNC) begin : asynchronous
            always @(posedge clk, posedge rst) if (rst) latch <= 0; else if (en) latch <= d;
            always @(posedge clk, posedge rst)
                if (rst) register <= 0; else if (out_en) register <= latch;
        end else begin : synchronous
            always @(posedge clk) if (rst) latch <= 0; else if (en) latch <= d;
            always @(posedge clk) if (rst) register <= 0; else if (out_en) register <= latch;
        end
    endgenerate
endmodule

// Multiplier without registers, from Lattice's sysDSP Usage Guide (FPGA-TN-02205): signed operands are
// two's complement. The third operand belongs to a mode that yosys does not use.
module MULT18X18D (
    input
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input
        C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    output
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
        P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    wire signed [35:0] a = {{18{SIGNEDA & A17}},
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0
    };
    wire signed [35:0] b = {{18{SIGNEDB & B17}},
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
    };
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
        P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = a * b;
endmodule
