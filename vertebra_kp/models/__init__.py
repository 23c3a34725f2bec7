"""The network: backbone, neck, decoder, heads."""
