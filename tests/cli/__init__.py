"""The command line without a server: what it reads, prints, and exits with."""
