"""What a worker remembers, in tables that have bounds: transfers, clients, networks, strangers, deadlines."""
