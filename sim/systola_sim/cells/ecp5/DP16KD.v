// Lattice ECP5: block of 18 Kbit of memory.
//
// After Lattice TN1264, "ECP5 and ECP5-5G Memory Usage Guide". Models what Yosys makes of memories: two ports of 1 to
// 18 bits, or a write port A of 36 bits and a read port B; one clock for both; with or without output registers; no
// reset. Anything else stops the build. A read port of 36 bits has its lower half at DOA. An output register has the
// enable OCEx alone. A bit that one port reads while the other writes it is undefined; here it reads as the complement
// of its old value, so that a design which depends on it fails.
module DP16KD (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
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
    parameter CLKAMUX = "CLKA";
    parameter CLKBMUX = "CLKB";
    parameter GSR = "ENABLED";
    parameter [319:0] INITVAL_00 = 320'h0;
    parameter [319:0] INITVAL_01 = 320'h0;
    parameter [319:0] INITVAL_02 = 320'h0;
    parameter [319:0] INITVAL_03 = 320'h0;
    parameter [319:0] INITVAL_04 = 320'h0;
    parameter [319:0] INITVAL_05 = 320'h0;
    parameter [319:0] INITVAL_06 = 320'h0;
    parameter [319:0] INITVAL_07 = 320'h0;
    parameter [319:0] INITVAL_08 = 320'h0;
    parameter [319:0] INITVAL_09 = 320'h0;
    parameter [319:0] INITVAL_0A = 320'h0;
    parameter [319:0] INITVAL_0B = 320'h0;
    parameter [319:0] INITVAL_0C = 320'h0;
    parameter [319:0] INITVAL_0D = 320'h0;
    parameter [319:0] INITVAL_0E = 320'h0;
    parameter [319:0] INITVAL_0F = 320'h0;
    parameter [319:0] INITVAL_10 = 320'h0;
    parameter [319:0] INITVAL_11 = 320'h0;
    parameter [319:0] INITVAL_12 = 320'h0;
    parameter [319:0] INITVAL_13 = 320'h0;
    parameter [319:0] INITVAL_14 = 320'h0;
    parameter [319:0] INITVAL_15 = 320'h0;
    parameter [319:0] INITVAL_16 = 320'h0;
    parameter [319:0] INITVAL_17 = 320'h0;
    parameter [319:0] INITVAL_18 = 320'h0;
    parameter [319:0] INITVAL_19 = 320'h0;
    parameter [319:0] INITVAL_1A = 320'h0;
    parameter [319:0] INITVAL_1B = 320'h0;
    parameter [319:0] INITVAL_1C = 320'h0;
    parameter [319:0] INITVAL_1D = 320'h0;
    parameter [319:0] INITVAL_1E = 320'h0;
    parameter [319:0] INITVAL_1F = 320'h0;
    parameter [319:0] INITVAL_20 = 320'h0;
    parameter [319:0] INITVAL_21 = 320'h0;
    parameter [319:0] INITVAL_22 = 320'h0;
    parameter [319:0] INITVAL_23 = 320'h0;
    parameter [319:0] INITVAL_24 = 320'h0;
    parameter [319:0] INITVAL_25 = 320'h0;
    parameter [319:0] INITVAL_26 = 320'h0;
    parameter [319:0] INITVAL_27 = 320'h0;
    parameter [319:0] INITVAL_28 = 320'h0;
    parameter [319:0] INITVAL_29 = 320'h0;
    parameter [319:0] INITVAL_2A = 320'h0;
    parameter [319:0] INITVAL_2B = 320'h0;
    parameter [319:0] INITVAL_2C = 320'h0;
    parameter [319:0] INITVAL_2D = 320'h0;
    parameter [319:0] INITVAL_2E = 320'h0;
    parameter [319:0] INITVAL_2F = 320'h0;
    parameter [319:0] INITVAL_30 = 320'h0;
    parameter [319:0] INITVAL_31 = 320'h0;
    parameter [319:0] INITVAL_32 = 320'h0;
    parameter [319:0] INITVAL_33 = 320'h0;
    parameter [319:0] INITVAL_34 = 320'h0;
    parameter [319:0] INITVAL_35 = 320'h0;
    parameter [319:0] INITVAL_36 = 320'h0;
    parameter [319:0] INITVAL_37 = 320'h0;
    parameter [319:0] INITVAL_38 = 320'h0;
    parameter [319:0] INITVAL_39 = 320'h0;
    parameter [319:0] INITVAL_3A = 320'h0;
    parameter [319:0] INITVAL_3B = 320'h0;
    parameter [319:0] INITVAL_3C = 320'h0;
    parameter [319:0] INITVAL_3D = 320'h0;
    parameter [319:0] INITVAL_3E = 320'h0;
    parameter [319:0] INITVAL_3F = 320'h0;

    generate
        if (DATA_WIDTH_B == 36 && DATA_WIDTH_A != 36)
            $error("DP16KD: a read port of 36 bits goes with a write port of 36 bits");
        if ((REGMODE_A != "NOREG" && REGMODE_A != "OUTREG") || (REGMODE_B != "NOREG" && REGMODE_B != "OUTREG"))
            $error("DP16KD: only the output registers' modes NOREG and OUTREG are modelled");
        if (DATA_WIDTH_B == 36 && REGMODE_A != REGMODE_B)
            $error("DP16KD: both halves of a read port of 36 bits have an output register, or neither");
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
            $error("DP16KD: only the chip select 000 is modelled");
        if (CLKAMUX != "CLKA" || CLKBMUX != "CLKB")
            $error("DP16KD: inverted clocks are not modelled");
        if ((WRITEMODE_A != "NORMAL" && WRITEMODE_A != "READBEFOREWRITE")
            || (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "READBEFOREWRITE"))
            $error("DP16KD: only the write modes NORMAL and READBEFOREWRITE are modelled");
    endgenerate

    localparam [0:0] PSEUDO = DATA_WIDTH_A == 36;  // port A writes 36 bits, port B reads

    // 512 words of four bytes of nine bits, the ninth of which only wide ports reach.
    reg [35:0] cells [0:511];
    reg [35:0] out_a = 0, out_b = 0;

    // The first bit of an access in its word, by the low bits of its address.
    function [5:0] first(input integer width, input [4:0] address);
        case (width)
            36: first = 0;
            18: first = address[4] ? 6'd18 : 6'd0;
            9: first = 6'd9 * address[4:3];
            4: first = 6'd9 * address[4:3] + 6'd4 * address[2];
            2: first = 6'd9 * address[4:3] + 6'd2 * address[2:1];
            default: first = 6'd9 * address[4:3] + address[2:0];
        endcase
    endfunction

    // The bits that an access of a width of 18 or 36 writes, by its bytes' enables; all of a narrow one.
    function [35:0] mask(input integer width, input [3:0] bytes);
        case (width)
            36: mask = {{9{bytes[3]}}, {9{bytes[2]}}, {9{bytes[1]}}, {9{bytes[0]}}};
            18: mask = {18'h0, {9{bytes[1]}}, {9{bytes[0]}}};
            default: mask = (36'h1 << width) - 36'h1;
        endcase
    endfunction

    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] pins_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8,
        DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] pins_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8,
        DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [35:0] data_a = PSEUDO ? {pins_b, pins_a} : {18'h0, pins_a};
    wire [35:0] data_b = {18'h0, pins_b};
    wire enable_a = CEA && {CSA2, CSA1, CSA0} == 0;
    wire enable_b = CEB && {CSB2, CSB1, CSB0} == 0;
    wire [5:0] first_a = first(DATA_WIDTH_A, address_a[4:0]);
    wire [5:0] first_b = first(DATA_WIDTH_B, address_b[4:0]);
    wire [35:0] written_a = enable_a && WEA ? mask(DATA_WIDTH_A, address_a[3:0]) << first_a : 36'h0;
    wire [35:0] written_b = enable_b && WEB && !PSEUDO ? mask(DATA_WIDTH_B, address_b[3:0]) << first_b : 36'h0;
    wire same_word = address_a[13:5] == address_b[13:5];
    wire [35:0] both_b = same_word ? written_b & ~written_a : 36'h0;

    always @(posedge CLKA) begin
        if (enable_a && !PSEUDO && (!WEA || WRITEMODE_A != "NORMAL"))
            out_a <= (cells[address_a[13:5]] ^ (same_word ? written_b : 36'h0)) >> first_a;
        if (written_a != 0)  // and what port B writes to other bits of the same word
            cells[address_a[13:5]] <= (cells[address_a[13:5]] & ~written_a & ~both_b)
                | (data_a << first_a & written_a) | (data_b << first_b & both_b);
        if (RSTA || RSTB) $fatal(1, "DP16KD: resets are not modelled");
    end
    always @(posedge CLKB) begin
        if (enable_b && (!WEB || WRITEMODE_B != "NORMAL"))
            out_b <= (cells[address_b[13:5]] ^ (same_word ? written_a : 36'h0)) >> first_b;
        if (written_b != 0 && !(same_word && written_a != 0))
            cells[address_b[13:5]] <= (cells[address_b[13:5]] & ~written_b) | (data_b << first_b & written_b);
    end
    reg [35:0] kept_a = 0, kept_b = 0;
    always @(posedge CLKA) if (OCEA) kept_a <= out_a;
    always @(posedge CLKB) if (OCEB) kept_b <= out_b;
    wire [35:0] seen_a = REGMODE_A == "OUTREG" ? kept_a : out_a;
    wire [35:0] seen_b = REGMODE_B == "OUTREG" ? kept_b : out_b;
    wire [17:0] port_a = PSEUDO ? seen_b[17:0] : seen_a[17:0];
    wire [17:0] port_b = DATA_WIDTH_B == 36 ? seen_b[35:18] : seen_b[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8,
        DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = port_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8,
        DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = port_b;

    task load(input [7:0] index, input [319:0] value);
        integer k;
        for (k = 0; k < 16; k = k + 2) cells[8 * index + k / 2] = {value[20 * k + 20 +: 18], value[20 * k +: 18]};
    endtask
    integer word;
    initial begin
        for (word = 0; word < 512; word = word + 1) cells[word] = 0;
        if (INITVAL_00 != 0) load(8'h00, INITVAL_00);
        if (INITVAL_01 != 0) load(8'h01, INITVAL_01);
        if (INITVAL_02 != 0) load(8'h02, INITVAL_02);
        if (INITVAL_03 != 0) load(8'h03, INITVAL_03);
        if (INITVAL_04 != 0) load(8'h04, INITVAL_04);
        if (INITVAL_05 != 0) load(8'h05, INITVAL_05);
        if (INITVAL_06 != 0) load(8'h06, INITVAL_06);
        if (INITVAL_07 != 0) load(8'h07, INITVAL_07);
        if (INITVAL_08 != 0) load(8'h08, INITVAL_08);
        if (INITVAL_09 != 0) load(8'h09, INITVAL_09);
        if (INITVAL_0A != 0) load(8'h0a, INITVAL_0A);
        if (INITVAL_0B != 0) load(8'h0b, INITVAL_0B);
        if (INITVAL_0C != 0) load(8'h0c, INITVAL_0C);
        if (INITVAL_0D != 0) load(8'h0d, INITVAL_0D);
        if (INITVAL_0E != 0) load(8'h0e, INITVAL_0E);
        if (INITVAL_0F != 0) load(8'h0f, INITVAL_0F);
        if (INITVAL_10 != 0) load(8'h10, INITVAL_10);
        if (INITVAL_11 != 0) load(8'h11, INITVAL_11);
        if (INITVAL_12 != 0) load(8'h12, INITVAL_12);
        if (INITVAL_13 != 0) load(8'h13, INITVAL_13);
        if (INITVAL_14 != 0) load(8'h14, INITVAL_14);
        if (INITVAL_15 != 0) load(8'h15, INITVAL_15);
        if (INITVAL_16 != 0) load(8'h16, INITVAL_16);
        if (INITVAL_17 != 0) load(8'h17, INITVAL_17);
        if (INITVAL_18 != 0) load(8'h18, INITVAL_18);
        if (INITVAL_19 != 0) load(8'h19, INITVAL_19);
        if (INITVAL_1A != 0) load(8'h1a, INITVAL_1A);
        if (INITVAL_1B != 0) load(8'h1b, INITVAL_1B);
        if (INITVAL_1C != 0) load(8'h1c, INITVAL_1C);
        if (INITVAL_1D != 0) load(8'h1d, INITVAL_1D);
        if (INITVAL_1E != 0) load(8'h1e, INITVAL_1E);
        if (INITVAL_1F != 0) load(8'h1f, INITVAL_1F);
        if (INITVAL_20 != 0) load(8'h20, INITVAL_20);
        if (INITVAL_21 != 0) load(8'h21, INITVAL_21);
        if (INITVAL_22 != 0) load(8'h22, INITVAL_22);
        if (INITVAL_23 != 0) load(8'h23, INITVAL_23);
        if (INITVAL_24 != 0) load(8'h24, INITVAL_24);
        if (INITVAL_25 != 0) load(8'h25, INITVAL_25);
        if (INITVAL_26 != 0) load(8'h26, INITVAL_26);
        if (INITVAL_27 != 0) load(8'h27, INITVAL_27);
        if (INITVAL_28 != 0) load(8'h28, INITVAL_28);
        if (INITVAL_29 != 0) load(8'h29, INITVAL_29);
        if (INITVAL_2A != 0) load(8'h2a, INITVAL_2A);
        if (INITVAL_2B != 0) load(8'h2b, INITVAL_2B);
        if (INITVAL_2C != 0) load(8'h2c, INITVAL_2C);
        if (INITVAL_2D != 0) load(8'h2d, INITVAL_2D);
        if (INITVAL_2E != 0) load(8'h2e, INITVAL_2E);
        if (INITVAL_2F != 0) load(8'h2f, INITVAL_2F);
        if (INITVAL_30 != 0) load(8'h30, INITVAL_30);
        if (INITVAL_31 != 0) load(8'h31, INITVAL_31);
        if (INITVAL_32 != 0) load(8'h32, INITVAL_32);
        if (INITVAL_33 != 0) load(8'h33, INITVAL_33);
        if (INITVAL_34 != 0) load(8'h34, INITVAL_34);
        if (INITVAL_35 != 0) load(8'h35, INITVAL_35);
        if (INITVAL_36 != 0) load(8'h36, INITVAL_36);
        if (INITVAL_37 != 0) load(8'h37, INITVAL_37);
        if (INITVAL_38 != 0) load(8'h38, INITVAL_38);
        if (INITVAL_39 != 0) load(8'h39, INITVAL_39);
        if (INITVAL_3A != 0) load(8'h3a, INITVAL_3A);
        if (INITVAL_3B != 0) load(8'h3b, INITVAL_3B);
        if (INITVAL_3C != 0) load(8'h3c, INITVAL_3C);
        if (INITVAL_3D != 0) load(8'h3d, INITVAL_3D);
        if (INITVAL_3E != 0) load(8'h3e, INITVAL_3E);
        if (INITVAL_3F != 0) load(8'h3f, INITVAL_3F);
    end
endmodule
