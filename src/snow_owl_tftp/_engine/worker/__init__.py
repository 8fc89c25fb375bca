"""One thread's loop: what comes in, what it means for a transfer, what goes out."""
