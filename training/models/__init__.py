"""Networks: encoders, head, classifiers and localizer, in plain torch, by torchvision's names."""
