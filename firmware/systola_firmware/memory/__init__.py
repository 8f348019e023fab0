"""Where each tensor lies in the activation memory: layouts, sharing, allocation, and the plan of them all."""
