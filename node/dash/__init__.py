"""`dash`: one web page over the ledger of a home, which it only reads."""
