"""Sockets and batched system calls: datagrams in, datagrams out, and nothing about TFTP."""
