"""What tests share: stand-ins, clients, servers and readers."""
