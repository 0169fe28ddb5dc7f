"""What a real library of music, a hostile file or an impatient user throws at it."""
