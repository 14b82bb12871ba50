"""What models were asked, what it cost, and how much of it somebody may have."""
