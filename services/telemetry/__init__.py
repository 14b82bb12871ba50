"""What the service tells of itself: to its log, to whoever measures it, and to whoever has to answer for it."""
