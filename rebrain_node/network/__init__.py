"""Room of pynetdicom: everything that speaks on the network."""
