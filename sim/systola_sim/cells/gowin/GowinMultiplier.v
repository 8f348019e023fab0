// Gowin GW2A: a multiplier with registers, of WIDTH x WIDTH bits: what the cells MULT9X9 and MULT18X18 are.
//
// After Gowin UG287, "Gowin DSP User Guide". Models what this design uses: parallel operands with constant signs,
// registers of A, of B and of the product, which share the clock, the clock enable and the synchronous reset; anything
// else stops the build.
module GowinMultiplier #(
    parameter WIDTH = 9,
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0,
    parameter SOA_REG = 1'b0,
    parameter MULT_RESET_MODE = "SYNC"
) (
    input [WIDTH-1:0] A, SIA, B, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [2*WIDTH-1:0] DOUT,
    output [WIDTH-1:0] SOA, SOB
);
    generate
        if (PIPE_REG != 0 || ASIGN_REG != 0 || BSIGN_REG != 0 || SOA_REG != 0)
            $error("MULT9X9 or MULT18X18: registers other than those of A, B and the product are not modelled");
        if (MULT_RESET_MODE != "SYNC")
            $error("MULT9X9 or MULT18X18: only a synchronous reset is modelled");
    endgenerate

    reg [WIDTH-1:0] a_register = 0, b_register = 0;
    reg [2*WIDTH-1:0] p_register = 0;
    wire [WIDTH-1:0] a = AREG ? a_register : A;
    wire [WIDTH-1:0] b = BREG ? b_register : B;
    wire signed [2*WIDTH-1:0] product = $signed({{WIDTH{ASIGN & a[WIDTH-1]}}, a}) * $signed({{WIDTH{BSIGN & b[WIDTH-1]}}, b});
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
        if (ASEL || BSEL) $fatal(1, "MULT9X9 or MULT18X18: shifted operands are not modelled");
    end
    assign DOUT = OUT_REG ? p_register : product;
    assign SOA = {WIDTH{1'bx}}, SOB = {WIDTH{1'bx}};  // cascades are not modelled
endmodule
