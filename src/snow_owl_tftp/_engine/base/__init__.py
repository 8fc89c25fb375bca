"""What every room stands on: the structs of transfers and messages, counters, queues, hash tables."""
