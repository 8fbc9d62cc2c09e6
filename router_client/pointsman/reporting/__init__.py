"""What came of the tasks: minute sums and feedback, kept until the control plane acknowledges them."""
