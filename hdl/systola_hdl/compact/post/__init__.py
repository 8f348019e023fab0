"""The POST unit: instruction, operands of VECTOR, parameters, values, requantizer, output."""
