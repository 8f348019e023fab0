"""Integer arithmetic of the reference kernels: multipliers and shifts, fixed-point functions, tables, SOFTMAX."""
