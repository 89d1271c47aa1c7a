"""What several test folders need: databases of their own, strategies, and small fulfilments of our protocols in memory."""
