"""Networks: encoders, head, classifiers and localizer; plain torch, with torchvision's parameter names."""
