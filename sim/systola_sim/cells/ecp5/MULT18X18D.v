// Lattice ECP5: multiplier of 18 x 18 bits, with registers.
//
// After Lattice TN1267, "ECP5 and ECP5-5G sysDSP Usage Guide". Models what this design uses: parallel operands, each
// register absent or clocked by CLK0, with synchronous reset RST0 and clock enable CE0 or CE1. There is no global reset
// and no pipeline register; anything else stops the build.
module MULT18X18D (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13,
    P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTA_RST = "RST0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_INPUTB_RST = "RST0";
    parameter REG_INPUTC_CLK = "NONE";
    parameter REG_INPUTC_CE = "CE0";
    parameter REG_INPUTC_RST = "RST0";
    parameter REG_PIPELINE_CLK = "NONE";
    parameter REG_PIPELINE_CE = "CE0";
    parameter REG_PIPELINE_RST = "RST0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter REG_OUTPUT_RST = "RST0";
    parameter CLK0_DIV = "ENABLED";
    parameter CLK1_DIV = "ENABLED";
    parameter CLK2_DIV = "ENABLED";
    parameter CLK3_DIV = "ENABLED";
    parameter HIGHSPEED_CLK = "NONE";
    parameter GSR = "ENABLED";
    parameter CAS_MATCH_REG = "FALSE";
    parameter SOURCEB_MODE = "B_SHIFT";
    parameter MULT_BYPASS = "DISABLED";
    parameter RESETMODE = "SYNC";

    localparam A_REG = REG_INPUTA_CLK == "CLK0";
    localparam B_REG = REG_INPUTB_CLK == "CLK0";
    localparam P_REG = REG_OUTPUT_CLK == "CLK0";
    generate
        if ((REG_INPUTA_CLK != "NONE" && !A_REG) || (REG_INPUTB_CLK != "NONE" && !B_REG) || (REG_OUTPUT_CLK != "NONE" && !P_REG))
            $error("MULT18X18D: only CLK0 is modelled");
        if (REG_INPUTC_CLK != "NONE" || REG_PIPELINE_CLK != "NONE" || HIGHSPEED_CLK != "NONE")
            $error("MULT18X18D: registers other than those of A, B and P are not modelled");
        if ((REG_INPUTA_CE != "CE0" && REG_INPUTA_CE != "CE1") || (REG_INPUTB_CE != "CE0" && REG_INPUTB_CE != "CE1")
            || REG_OUTPUT_CE != "CE0")
            $error("MULT18X18D: only CE0 and, of the operands, CE1 are modelled");
        if (REG_INPUTA_RST != "RST0" || REG_INPUTB_RST != "RST0" || REG_OUTPUT_RST != "RST0" || RESETMODE != "SYNC")
            $error("MULT18X18D: only a synchronous RST0 is modelled");
        if (CAS_MATCH_REG != "FALSE" || SOURCEB_MODE != "B_SHIFT" || MULT_BYPASS != "DISABLED")
            $error("MULT18X18D: cascades, the operand C and the bypass are not modelled");
        if (CLK0_DIV != "ENABLED" || CLK1_DIV != "ENABLED" || CLK2_DIV != "ENABLED" || CLK3_DIV != "ENABLED")
            $error("MULT18X18D: the clock dividers' settings are not modelled");
    endgenerate

    wire [17:0] a_pins = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b_pins = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire a_enable = REG_INPUTA_CE == "CE1" ? CE1 : CE0;
    wire b_enable = REG_INPUTB_CE == "CE1" ? CE1 : CE0;
    reg [17:0] a_register = 0, b_register = 0;
    reg [35:0] p_register = 0;
    wire [17:0] a = A_REG ? a_register : a_pins;
    wire [17:0] b = B_REG ? b_register : b_pins;
    wire signed [35:0] product = $signed({{18{SIGNEDA & a[17]}}, a}) * $signed({{18{SIGNEDB & b[17]}}, b});
    always @(posedge CLK0) begin
        if (RST0) begin
            a_register <= 0;
            b_register <= 0;
            p_register <= 0;
        end else begin
            if (a_enable) a_register <= a_pins;
            if (b_enable) b_register <= b_pins;
            if (CE0) p_register <= product;
        end
        if (SOURCEA || SOURCEB) $fatal(1, "MULT18X18D: shifted operands are not modelled");
    end
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12,
        P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = P_REG ? p_register : product;
endmodule
