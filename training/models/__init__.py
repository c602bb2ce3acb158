"""Define the networks in plain torch, by torchvision's names: encoders, head and localizer."""
