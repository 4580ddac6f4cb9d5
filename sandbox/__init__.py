"""MarketSage in miniature: the real parts that drills, molecule and tests roll back."""
