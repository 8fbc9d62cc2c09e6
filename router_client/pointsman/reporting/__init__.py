"""Report outcomes as sums per minute, and feedback; both are kept until the control plane acknowledges them."""
