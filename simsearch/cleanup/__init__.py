"""Clean-up of copies: a plan, what it moves away, and the way back."""
