"""The demonstration: a mini-PACS, a simulated head CT, the table and the picture."""
