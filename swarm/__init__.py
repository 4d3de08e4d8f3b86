"""Moves signed records between peers and remembers them. trio + libp2p in a thread of its own."""
