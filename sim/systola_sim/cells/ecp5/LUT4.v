// Lattice ECP5: look-up table of four inputs. As Yosys' model, in one expression: netlists have thousands of them.
module LUT4 (input A, B, C, D, output Z);
    parameter [15:0] INIT = 16'h0000;
    assign Z = INIT[{D, C, B, A}];
endmodule
