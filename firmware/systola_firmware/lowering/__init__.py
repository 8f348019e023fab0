"""From layers to instructions: lowering of each kind, weights, order with tokens and marks, predicted cycles."""
