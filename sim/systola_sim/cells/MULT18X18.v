// Gowin GW2A: multiplier of 18 x 18 bits, with registers.
//
// After Gowin UG287, "Gowin DSP User Guide". Models what this design uses: parallel operands with constant signs, registers of A,
// of B and of the product, which share the clock, the clock enable and the synchronous reset; anything else stops the build.
module MULT18X18 (
    input [17:0] A, SIA, B, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [35:0] DOUT,
    output [17:0] SOA, SOB
);
    parameter AREG = 1'b0;
    parameter BREG = 1'b0;
    parameter OUT_REG = 1'b0;
    parameter PIPE_REG = 1'b0;
    parameter ASIGN_REG = 1'b0;
    parameter BSIGN_REG = 1'b0;
    parameter SOA_REG = 1'b0;
    parameter MULT_RESET_MODE = "SYNC";
    generate
        if (PIPE_REG != 0 || ASIGN_REG != 0 || BSIGN_REG != 0 || SOA_REG != 0)
            $error("MULT18X18: registers other than those of A, B and the product are not modelled");
        if (MULT_RESET_MODE != "SYNC")
            $error("MULT18X18: only a synchronous reset is modelled");
    endgenerate

    reg [17:0] a_register = 0, b_register = 0;
    reg [35:0] p_register = 0;
    wire [17:0] a = AREG ? a_register : A;
    wire [17:0] b = BREG ? b_register : B;
    wire signed [35:0] product = $signed({{18{ASIGN & a[17]}}, a}) * $signed({{18{BSIGN & b[17]}}, b});
    always @(posedge CLK) begin
        if (RESET) begin
            a_register <= 0;
            b_register <= 0;
            p_register <= 0;
        end else if (CE) begin
            a_register <= A;
            b_register <= B;
            p_register <= product;
        end
        if (ASEL || BSEL) $fatal(1, "MULT18X18: shifted operands are not modelled");
    end
    assign DOUT = OUT_REG ? p_register : product;
    assign SOA = 18'bx, SOB = 18'bx;  // cascades are not modelled
endmodule
