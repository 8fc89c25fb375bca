"""The state machines of a transfer over plain structs: the twins of snow_owl_tftp.protocol, file by file."""
