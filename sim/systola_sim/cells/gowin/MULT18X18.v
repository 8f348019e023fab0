// Gowin GW2A: multiplier of 18 x 18 bits, see GowinMultiplier.
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
    GowinMultiplier #(
        .WIDTH(18),
        .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG), .PIPE_REG(PIPE_REG),
        .ASIGN_REG(ASIGN_REG), .BSIGN_REG(BSIGN_REG), .SOA_REG(SOA_REG), .MULT_RESET_MODE(MULT_RESET_MODE)
    ) multiplier (.*);
endmodule
