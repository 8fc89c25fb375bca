"""What is handed to the engine: `transfer` holds the frozen plan of one transfer, and how transfers end."""
